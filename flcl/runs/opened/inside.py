"""What the learned classes and tasks of a run on disk have inside: factors, cores and prompts."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings
from flcl.runs.opened.run import Run


class ClassFactors(NamedTuple):
    """The factors of K classes.

    Attributes:
      names: of the classes. tasks: the number of the task that learned each class.
      convolutions: index, name, shape and parameters of each adapted convolution.
      rows: adapted convolution -> its factors, each [K, n].
    """

    names: tuple[str, ...]
    tasks: tuple[int, ...]
    convolutions: tuple[dict, ...]
    rows: dict[str, dict[str, jax.Array]]


class TaskUpdate(NamedTuple):
    """The low-rank update of a classifier after a task.

    Attributes:
      task: the number of the task. cores: map, such as `block_00/q`, -> the core [r, r] in
      orthonormal bases. prompt: the tokens [m, d]; None = the method has none.
    """

    task: int
    cores: dict[str, np.ndarray]
    prompt: np.ndarray | None


def class_factors(run: Run) -> ClassFactors:
    """The factors of all learned classes that were not removed, task by task.

    Raises `ValueError` for a run whose classes have no factors.
    """
    if missing := without_factors(run):
        raise ValueError(f"workdir {run.workdir}: {missing}")
    method, memory = run._setup.method, run._memory(run.learned[-1])
    labels, tasks = [], []
    for task in (run.stream.tasks[index - 1] for index in run.learned):
        left = run.stream.left(task.labels)
        labels += left
        tasks += [task.index] * len(left)
    each = [method.trunk_and_factors(memory, label)[1] for label in labels]
    return ClassFactors(
        tuple(run.class_names[run.stream.class_order[label]] for label in labels),
        tuple(tasks),
        tuple(method.describe()["adapted_convolutions"]),
        jax.tree.map(lambda *values: jnp.stack(values), *each),
    )


def without_factors(run: Run) -> str:
    """Why the classes of a run have no factors to look at; empty if they have some."""
    if not isinstance(run.settings, settings.FunLoRARun):
        return f"method={run.settings.method}: no class has factors; those of funlora have"
    learned = [label for t in run.learned for label in run.stream.tasks[t - 1].labels]
    return "" if run.stream.left(learned) else "every learned class was removed"


def task_updates(run: Run) -> Iterator[TaskUpdate]:
    """The update after every learned task of FM-LoRA, which adds to one core per map."""
    for index in run.learned:
        memory = run._memory(index)
        model = run._setup.of_task(run.stream.tasks[index - 1]).method.inference(memory)
        cores = {
            f"{block}/{site}": np.asarray(entry["core"])
            for block, sites in model["adapters"].items()
            for site, entry in sites.items()
        }
        prompt = model["prompt"]
        # With gates, the tokens are one of two entries.
        tokens = prompt["tokens"] if isinstance(prompt, dict) else prompt
        yield TaskUpdate(index, cores, None if tokens is None else np.asarray(tokens))
