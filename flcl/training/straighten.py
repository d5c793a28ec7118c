"""The stage after the training of a generator's task: its class factors learn straight paths."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from flcl.compiling import kept
from flcl.data import loader
from flcl.data.encoded.check import Progress
from flcl.data.selection import Selection, everything
from flcl.data.sequence.stream import Task
from flcl.devices import hosts, sharding
from flcl.devices import mesh as meshes
from flcl.flow.straight import make_pair_sampler
from flcl.methods.base import Generator, Memory
from flcl.rng import stream_key
from flcl.training.loop import TaskTraining
from flcl.training.step import Phase


def draw_pairs(
    method: Generator, memory: Memory, task: Task, mesh: Mesh, progress: Progress
) -> dict[int, Selection]:
    """Pairs of each class of a trained task: float32 [pairs, 2, H, W, C], on the host.

    Pair i of a class depends on (seed, task, label, i) and on the memory alone.
    """
    count, chunk = method.run.straighten.pairs, pair_chunk(method, mesh)
    key, program = stream_key(method.run.seed, "pairs", task.index), pair_program(method, mesh)
    advance, done = progress(f"pairs of task {task.index}", len(task.labels) * count), 0
    pairs = {}
    for label in task.labels:
        parameters = method.class_parameters(memory, np.int32(label))
        drawn = []
        for start in range(0, count, chunk):
            indices = np.arange(start, start + chunk, dtype=np.int32)
            drawn.append(np.asarray(program(parameters, key, np.int32(label), indices)))
            advance(done + min(start + chunk, count))
        done += count
        pairs[label] = everything(np.concatenate(drawn)[:count])
    return pairs


def pair_chunk(method: Generator, mesh: Mesh) -> int:
    """Pairs of one class that are drawn together.

    It is not `sample.chunk`, which a run may change while it goes on: pairs are not rounded, so
    their last bits may depend on the number that is drawn together.
    """
    return meshes.rounded_up(method.run.phase2.batch_size, mesh)


@kept
def pair_program(method: Generator, mesh: Mesh):
    """The compiled function that draws one chunk of pairs; every process gets all of them."""
    data, spread = method.run.data, sharding.over_devices(mesh)
    function = make_pair_sampler(
        method.velocity,
        (data.image_size, data.image_size, data.channels),
        method.run.straighten.teacher,
        lambda x: jax.lax.with_sharding_constraint(x, spread),
    )
    return jax.jit(function, out_shardings=sharding.replicated(mesh))


def straightened(
    method: Generator,
    memory: Memory,
    task: Task,
    phase_of: Callable[..., Phase],
    progress: Progress,
) -> Memory:
    """The memory whose classes of `task` have straight paths; all else has the same bits.

    Nothing is saved inside: a run that is stopped here repeats the stage, from the same numbers.

    Args:
      phase_of: (trainable, frozen) -> the phase of these shapes.
      progress: shows the pairs and the steps; it may stop the run.

    Raises `FloatingPointError` for a loss that is not finite.
    """
    trainable, frozen = method.straightening(memory, task)
    phase = phase_of(trainable, frozen)
    mesh = phase.mesh
    keys, train = method.run.straighten, method.phase_settings(phase.index)
    pairs = draw_pairs(method, memory, task, mesh, progress)
    batches = loader.class_groups(
        pairs,
        groups=train.groups,
        per_group=train.batch_size // train.groups,
        seed=method.run.seed,
        task=task.index,
        shard=hosts.shard(),
    )
    name = f"straightening task {task.index}"
    training = TaskTraining(
        name=name,
        steps=keys.steps,
        key=stream_key(method.run.seed, "straighten", task.index),
        remedy=method.remedy(phase.index),
        log_every=method.run.runtime.log_every,
        save_every=keys.steps,
        advance=progress(name, keys.steps),
    )
    state = phase.create(trainable, keys.steps)
    frozen = sharding.place(frozen, mesh, method.divides)
    state = training.run(phase, state, frozen, loader.iterate(batches, 0, keys.steps))
    return method.end(memory, task, state.ema)
