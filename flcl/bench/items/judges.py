"""The train step of the judge, a ResNet that tests what a generator draws."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from flcl.bench.figures import Figure, timed
from flcl.bench.programs import CLASSES, one_device, rates
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.devices import sharding
from flcl.evaluate.judge import Judge
from flcl.rng import stream_key


def judge_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of the judge against three times its answers to the same batch."""
    run, mesh = size.generator_run(), one_device()
    shape = (run.data.image_size, run.data.image_size, run.data.channels)
    generator, count = np.random.default_rng(0), run.judge.batch_size
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    labels = np.resize(np.arange(CLASSES, dtype=np.int32), count)
    batch = sharding.place_batch({"images": images, "labels": labels}, mesh)
    with jax.set_mesh(mesh):
        judge = Judge(run.judge, CLASSES, shape, 0, lambda b: sharding.place_batch(b, mesh))
        seconds = interleave(_calls(judge, batch), rounds)
    # The backward pass has twice the work of the forward pass.
    answers = [3 * each for each in seconds["answers"]]
    more = rates(count, None, seconds["step"])
    more["steps_per_second"] = 1.0 / float(np.median(seconds["step"]))
    note = f"ResNet of width {run.judge.width}, {count} images of {shape[0]} pixels"
    yield timed("judge_step", seconds["step"], answers, note=note, **more)


def _calls(judge: Judge, batch: dict) -> dict:
    """One step and the answers to a batch; each step goes on from the one before."""
    key, seen = stream_key(0, "benchmark"), jnp.ones(CLASSES, bool)
    state = judge._init(key)
    variables = jax.tree.map(jnp.copy, {"params": state.params, "batch_stats": state.batch_stats})

    def step():
        nonlocal state
        state, loss = judge._step(state, batch, seen, key, jnp.int32(1000))
        return loss

    return {"step": step, "answers": lambda: judge._predict(variables, batch["images"], seen)}
