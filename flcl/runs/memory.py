"""The memory of a run: its first value, and how stored tasks are put back into it."""

import jax
from jax.sharding import Mesh

from flcl import waiting
from flcl.compiling import kept, run_once
from flcl.data.sequence.stream import Task, TaskStream
from flcl.devices import sharding
from flcl.methods.base import Memory, Method, Tree
from flcl.rng import stream_key
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import Setup


def empty_memory(setup: Setup) -> Memory:
    """The memory before the first task on the devices of the run; its trunk is still random."""
    method = setup.compiled(setup.data.stream.tasks[0])
    program, about = _initialiser(method, setup.mesh), (method.name, method.run.model)
    with waiting.first_call(program, "the first values of the network", about):
        return program(stream_key(setup.run.seed, "init"))


@kept
def _initialiser(method: Method, mesh: Mesh):
    """The compiled `method.init`."""
    # The compiled function writes every array to its final place, so a large trunk is never in
    # memory twice.
    placed = sharding.of_tree(_abstract(method), mesh, method.divides)
    return jax.jit(method.init, out_shardings=placed, compiler_options=run_once())


def grown(setup: Setup, memory: Memory, task: Task) -> Memory:
    """The memory with the room that `task` has; what is new has its first values.

    Nothing old changes: classes and tasks come last on their axes, and first values depend on
    (seed, class, layer) and never on the room.
    """
    method = setup.of_task(task).method
    structure = jax.tree.structure(memory)
    wanted = jax.tree.leaves(_abstract(method))
    leaves = jax.tree.leaves(memory)
    small = [n for n, leaf in enumerate(leaves) if leaf.shape != wanted[n].shape]
    if not small:
        return memory
    fill = _filler(method, setup.mesh, tuple(small))
    filled = fill(stream_key(setup.run.seed, "init"), [leaves[number] for number in small])
    for number, leaf in zip(small, filled, strict=True):
        leaves[number] = leaf
    return jax.tree.unflatten(structure, leaves)


@kept
def _filler(method: Method, mesh: Mesh, numbers: tuple[int, ...]):
    """The compiled function that puts smaller arrays into the first values of larger ones."""

    def fill(key, small):
        # Only these arrays are computed: the trunk and all others of the same size are not.
        fresh = jax.tree.leaves(method.init(key))
        pairs = zip(numbers, small, strict=True)
        return [fresh[n].at[tuple(map(slice, old.shape))].set(old) for n, old in pairs]

    placed = jax.tree.leaves(sharding.of_tree(_abstract(method), mesh, method.divides))
    shardings = [placed[number] for number in numbers]
    return jax.jit(fill, out_shardings=shardings, compiler_options=run_once())


@kept
def _abstract(method: Method):
    """Shapes and types of the memory."""
    return jax.eval_shape(method.init, jax.eval_shape(lambda: jax.random.key(0)))


def first_memory(setup: Setup, weights) -> Memory:
    """The memory before the first task, with the `weights` that `Method.resolve` has read."""
    memory = empty_memory(setup)
    placed = jax.tree.map(lambda leaf: leaf.sharding, memory)
    return jax.device_put(setup.method.load(memory, weights), placed)


def stored_tasks(checkpoints: Checkpoints, stream: TaskStream) -> list[int]:
    """Numbers of the stored tasks of a run, ascending.

    Raises `DamagedError` if one is missing, and `ValueError` for one that the run does not have.
    """
    # First: a gap before a save that the run does not have says nothing about the others.
    for task in checkpoints.numbers():
        if task > len(stream.tasks):
            raise ValueError(
                f"checkpoint {checkpoints.folder / 'tasks' / str(task)} does not belong to this "
                f"run of {len(stream.tasks)} tasks: move it away"
            )
    return checkpoints.tasks()


def restore_task(setup: Setup, checkpoints: Checkpoints, memory: Memory, task: Task) -> Memory:
    """Puts the stored part of `task` back into the memory; raises `DamagedError`."""
    return read_task(setup, checkpoints, memory, task)[0]


def read_task(
    setup: Setup, checkpoints: Checkpoints, memory: Memory, task: Task
) -> tuple[Memory, Tree]:
    """The memory with the stored part of `task`, and this part alone; raises `DamagedError`."""
    memory, method = grown(setup, memory, task), setup.of_task(task).method
    # What the task would store now has the shapes of what it has stored.
    target = jax.eval_shape(lambda m: method.added(m, task), memory)
    target = method.stored_as(target, checkpoints.shapes_of_task(task.index))
    added = checkpoints.restore_task(
        task.index, sharding.abstract(target, setup.mesh, method.divides)
    )
    return method.restore(memory, task, added), added
