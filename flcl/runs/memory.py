"""The memory of a run: its first value, and how stored tasks are put back into it."""

import jax
from jax.sharding import Mesh

from flcl.compiling import kept, run_once
from flcl.data.stream import Task, TaskStream
from flcl.devices import sharding
from flcl.methods.base import Memory, Method
from flcl.rng import stream_key
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import Setup


def empty_memory(setup: Setup) -> Memory:
    """The memory before the first task on the devices of the run; its trunk is still random."""
    return _initialiser(setup.method, setup.mesh)(stream_key(setup.run.seed, "init"))


@kept
def _initialiser(method: Method, mesh: Mesh):
    """The compiled `method.init`."""
    # The compiled function writes every array to its final place, so a large trunk is never in
    # memory twice.
    abstract = jax.eval_shape(method.init, jax.eval_shape(lambda: jax.random.key(0)))
    placed = sharding.of_tree(abstract, mesh, method.divides)
    return jax.jit(method.init, out_shardings=placed, compiler_options=run_once())


def first_memory(setup: Setup, weights) -> Memory:
    """The memory before the first task, with the `weights` that `Method.resolve` has read."""
    memory = empty_memory(setup)
    placed = jax.tree.map(lambda leaf: leaf.sharding, memory)
    return jax.device_put(setup.method.load(memory, weights), placed)


def stored_tasks(checkpoints: Checkpoints, stream: TaskStream) -> list[int]:
    """Numbers of the stored tasks of a run, ascending.

    Raises `DamagedError` if one is missing, and `ValueError` for one that the run does not have.
    """
    stored = checkpoints.tasks()
    if len(stored) > len(stream.tasks):
        stray = checkpoints.folder / "tasks" / str(stored[len(stream.tasks)])
        raise ValueError(
            f"checkpoint {stray} does not belong to this run of {len(stream.tasks)} tasks: move "
            "it away"
        )
    return stored


def restore_task(setup: Setup, checkpoints: Checkpoints, memory: Memory, task: Task) -> Memory:
    """Puts the stored part of `task` back into the memory; raises `DamagedError`."""
    method = setup.method
    # What the task would store now has the shapes of what it has stored.
    target = jax.eval_shape(lambda m: method.added(m, task), memory)
    target = method.stored_as(target, checkpoints.shapes_of_task(task.index))
    added = checkpoints.restore_task(
        task.index, sharding.abstract(target, setup.mesh, method.divides)
    )
    return method.restore(memory, task, added)
