"""What every continual method declares: training, memory and what a task stores."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import optax

from flcl import settings
from flcl.data.selection import Selection
from flcl.data.sequence.stream import Task, TaskStream
from flcl.devices import sharding

Memory = Any
Tree = Any
Velocity = Callable[[jax.Array, jax.Array], jax.Array]
Score = Callable[[Tree, np.ndarray], Mapping[str, np.ndarray]]  # (solved, features) -> scores
Generate = Callable[[Memory, int, int], Any]  # (memory, label, count) -> uint8 [count, H, W, C]


class Resolved(NamedTuple):
    """The result of reading files before a method is built.

    Attributes:
      run: the settings, completed with the values from files.
      weights: the weights that `Method.load` puts into the first memory; None = no file is read.
      origin: the origin of the weights, for `results.json`.
      note: one line for people about the weights; empty if there are none.
    """

    run: settings.Run
    weights: Tree | None = None
    origin: Mapping[str, Any] = {}
    note: str = ""


class Method(abc.ABC):
    """The part of the contract that generators and classifiers share.

    Attributes:
      name: the value of `config.method`.
      run: the settings of the run.
      stream: the classes and domains of each task.
      spread: entries of a batch that are divided over the devices along their leading axis; the
        other entries are replicated.
      takes_turns: whether a train step loops over its classes; XLA counts the FLOPs of such a loop
        only once.
      straightens: whether every task ends with a stage of phase `STRAIGHTENING`; only a generator's
        may, see `Generator.straightening`.
    """

    name: ClassVar[str]
    spread: frozenset[str] = frozenset({"images"})
    takes_turns = False
    straightens = False

    def __init__(self, run: settings.Run, stream: TaskStream):
        self.run = run
        self.stream = stream

    def check(self) -> None:
        """Raises `ValueError` in one line for tasks that a new run cannot learn."""
        return  # by default every task can be learned

    @classmethod
    def resolve(cls, run: settings.Run) -> Resolved:
        """Reads the files that the method needs before it is built: by default none."""
        return Resolved(run)

    @classmethod
    def sized(cls, run: settings.Run) -> settings.Run:
        """`run` with all that decides shapes, also what is in files that are here."""
        return run

    def divides(self, name: str) -> bool:
        """Whether the last axis of an array is divided over the devices that share parameters.

        name: such as `trunk/input/kernel`, of an array in `trainable`, `frozen`, the memory or the
          optimiser state. By default kernels and embeddings are divided; all other arrays are
          replicated.
        """
        return sharding.is_kernel(name)

    def phase(self, task: Task) -> int:
        """1 for the first task, 2 for every later task; each phase compiles one step."""
        return 1 if task.index == 1 else 2

    @abc.abstractmethod
    def steps(self, task: Task, images: int) -> int:
        """Optimiser steps of a task with `images` training images; 0 = no training."""

    @abc.abstractmethod
    def ema_decay(self, phase: int) -> float:
        """Decay of the weight average that a task keeps; 0 = the last weights are kept."""

    @abc.abstractmethod
    def optimizer(self, phase: int) -> optax.GradientTransformation:
        """The optimiser of `trainable`.

        It may take `progress`, the finished share of the task's steps, as an extra argument.
        """

    @abc.abstractmethod
    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a global training batch of a phase."""

    @abc.abstractmethod
    def batches(self, task: Task, images: Mapping[int, Selection], shard: tuple[int, int]):
        """Training batches as a `grain.MapDataset`: batch k is a pure function of (seed, task, k).

        images: the images of each label. shard: (index, count), the part that this process reads.
        """

    def training_images(
        self, task: Task, real: Mapping[int, Selection], memory: Memory, generate: Generate
    ) -> Mapping[int, Selection]:
        """The training images of `task` by label: by default its real images.

        `generate` generates images of learned classes; only a generator may call it.
        """
        del task, memory, generate
        return real

    @abc.abstractmethod
    def remedy(self, phase: int) -> str:
        """The advice for a loss that is not finite, with the keys to change."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Memory:
        """The memory before the first task. This function is traced."""

    def load(self, memory: Memory, weights: Tree | None) -> Memory:
        """The initial memory with the `weights` that `resolve` has read."""
        assert weights is None, f"{self.name} reads no weights"
        return memory

    @abc.abstractmethod
    def begin(self, memory: Memory, task: Task, key: jax.Array) -> tuple[Tree, Tree]:
        """`(trainable, frozen)` at the start of a task."""

    @abc.abstractmethod
    def loss(
        self,
        phase: int,
        trainable: Tree,
        frozen: Tree,
        batch: dict,
        key: jax.Array,
        progress: jax.Array,
    ) -> jax.Array:
        """Scalar loss of a batch; `progress` is the finished share of the task's steps."""

    @abc.abstractmethod
    def end(self, memory: Memory, task: Task, trainable: Tree) -> Memory:
        """The memory after a task, from its final (averaged) trainable tree."""

    @abc.abstractmethod
    def added(self, memory: Memory, task: Task) -> Tree:
        """The part of the memory that `task` wrote: everything that is stored for the task."""

    @abc.abstractmethod
    def restore(self, memory: Memory, task: Task, added: Tree) -> Memory:
        """Inverse of `added`: puts the part of the task back into the memory."""

    def forget(self, memory: Memory, label: int) -> Memory:
        """The memory with zeros in the place of what belongs to one class alone.

        Doing it twice is doing it once. Raises `ValueError` for a method whose classes have nothing
        of their own.
        """
        del memory, label
        raise self.shared_by_all()

    def shared_by_all(self) -> ValueError:
        """The error for a method whose classes have nothing of their own."""
        return ValueError(
            f"method={self.name}: all classes share one network, so no class can be exported or "
            "removed; those of the method funlora can"
        )

    def stored_as(self, target: Tree, shapes: Mapping[str, tuple[int, ...]]) -> Tree:
        """`target`, the shapes that `added` has before a task, as a stored task has them.

        shapes: those of the stored arrays by name, such as `['cores']['block_00']['q']`.
        """
        del shapes
        return target

    @abc.abstractmethod
    def describe(self) -> dict:
        """Sizes of the method by name, as JSON values: see `Generator` and `Classifier`."""

    def watched(self, trainable: Tree, task: Task) -> dict[str, float]:
        """Numbers of the averaged `trainable` while `task` trains, recorded beside the loss.

        By default none. Their names are those of curves; each is a number.
        """
        del trainable, task
        return {}

    def diagnose(self, memory: Memory, task: Task) -> dict:
        """Values of this method after a task, for `results.json`; by default none."""
        del memory, task
        return {}


def bytes_of(tree: Tree) -> int:
    """Bytes of the (abstract) arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def batch_of(data: settings.Data, leading: tuple[int, ...], labels: tuple[int, ...]) -> dict:
    """A batch of uint8 images [*leading, H, W, C] and int32 labels [*labels]."""
    # uint8 needs a quarter of the transfer of float32; the step scales the images.
    image = (data.image_size, data.image_size, data.channels)
    return {
        "images": jax.ShapeDtypeStruct((*leading, *image), np.uint8),
        "labels": jax.ShapeDtypeStruct(labels, np.int32),
    }
