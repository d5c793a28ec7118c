"""The answers of the classifier that a generative method has of its own."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flcl.compiling import kept
from flcl.data import loader
from flcl.data.selection import Selection
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts, sharding
from flcl.methods.base import Generator


def accuracies(
    method: Generator, memory, data: TaskData, groups: Sequence[Task], mesh: Mesh
) -> list[float | None]:
    """Accuracy on the real test images of each group, among all classes that are learned.

    The papers of these methods print this number: their classifier learned from real images of
    each task and from replay of the earlier ones. A judge learns from samples alone, so the two
    are never compared. None for a group that cannot be tested.
    """
    tests = [data.test(group) if data.tested(group) else None for group in groups]
    return [
        None
        if test is None
        else float((_predicted(method, memory, test, mesh) == test.labels).mean())
        for test in tests
    ]


def _predicted(method: Generator, memory, images: Selection, mesh: Mesh) -> np.ndarray:
    """Labels int32 [N], in batches of `judge.batch_size`."""
    predict, size, labels = _program(method, mesh), method.run.judge.batch_size, []
    batches = loader.in_order(images, size, hosts.rows(size))
    for number in range(len(batches)):
        placed = sharding.place_batch({"images": batches[number]["images"]}, mesh)
        labels.append(np.asarray(predict(memory, placed["images"])))
    return np.concatenate(labels)[: len(images)]


@kept
def _program(method: Generator, mesh: Mesh):
    def predict(memory, images):
        return jnp.argmax(method.logits(memory, images), axis=-1).astype(jnp.int32)

    return jax.jit(predict, out_shardings=sharding.replicated(mesh))
