"""The contract between the training loop and a continual method.

A method is a set of pure functions around one pytree, the *memory*: everything that is learned so
far. For each task the method returns two separate trees, `trainable` and `frozen`. Gradients,
clipping, optimiser state and averaging use only `trainable`. Labels, rows, masks and ranks are
traced arrays, so one step is compiled per phase, however many tasks follow. A method has no state:
runs of equal settings in a process share one object and its programs (`methods.shared`).
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import grain
import jax
import numpy as np
import optax

from flcl import settings
from flcl.data import loader
from flcl.data.selection import Selection
from flcl.data.stream import Task, TaskStream
from flcl.devices import sharding
from flcl.heads.base import Head
from flcl.methods import optimisation

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
    """

    name: ClassVar[str]
    spread: frozenset[str] = frozenset({"images"})
    takes_turns = False

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

    def stored_as(self, target: Tree, shapes: Mapping[str, tuple[int, ...]]) -> Tree:
        """`target`, the shapes that `added` has before a task, as a stored task has them.

        shapes: those of the stored arrays by name, such as `['cores']['block_00']['q']`.
        """
        del shapes
        return target

    @abc.abstractmethod
    def describe(self) -> dict:
        """Sizes of the method by name, as JSON values: see `Generator` and `Classifier`."""

    def diagnose(self, memory: Memory, task: Task) -> dict:
        """Values of this method after a task, for `results.json`; by default none."""
        del memory, task
        return {}


class Generator(Method):
    """A continual method that generates images of every class it has learned.

    A batch is `{"images": uint8 [n, G, H, W, C], "labels": int32 [G]}`. `describe` gives
    `trunk_parameters`, `parameters_per_class`, `adapted_convolutions` (for each its index, name,
    shape and parameters per class) and `bytes_per_task`.

    Attributes:
      old_classes_fixed: whether a learned class never changes again; then its samples are
        generated only once.
    """

    old_classes_fixed = False
    run: settings.GeneratorRun

    def phase_settings(self, phase: int) -> settings.Phase:
        """Training settings of a phase."""
        return self.run.phase1 if phase == 1 else self.run.phase2

    def steps(self, task: Task, images: int) -> int:
        del images
        return self.phase_settings(self.phase(task)).steps

    def ema_decay(self, phase: int) -> float:
        return self.phase_settings(phase).ema_decay

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        return optimisation.adam(self.phase_settings(phase))

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        # [n, G]: n is first because it is the axis that is divided over the devices
        # (`adapters.modulate`).
        size, groups = self.phase_settings(phase).batch_size, self.phase_settings(phase).groups
        return _batch(self.run.data, (size // groups, groups), (groups,))

    def batches(self, task, images, shard) -> grain.MapDataset:
        phase = self.phase_settings(self.phase(task))
        return loader.class_groups(
            images,
            groups=phase.groups,
            per_group=phase.batch_size // phase.groups,
            seed=self.run.seed,
            task=task.index,
            shard=shard,
        )

    def remedy(self, phase: int) -> str:
        return f"lower phase{phase}.learning_rate or raise phase{phase}.warmup_steps"

    @abc.abstractmethod
    def class_velocity(self, memory: Memory, label: jax.Array) -> Velocity:
        """The velocity field of one class, ready for sampling."""


class Preliminary(NamedTuple):
    """A short run before a task that measures losses on held-out images.

    Attributes:
      epochs: passes over its training images.
      holdout: share of the task's training images that is held out to measure the loss.
    """

    epochs: float
    holdout: float


class Moved(NamedTuple):
    """The features of some images before and after the training of a task, both [N, d]."""

    before: np.ndarray
    after: np.ndarray


class Classifier(Method):
    """A continual method that predicts the class of an image without its task id.

    A batch is `{"images": uint8 [B, H, W, C], "labels": int32 [B]}`. `describe` gives
    `trunk_parameters`, `shared_parameters` (adapter parameters common to all tasks),
    `parameters_per_task` (what each later task adds), `head_parameters`, `prompt_parameters` if
    there is a prompt, `trained_parameters` and `bytes_per_task` (one number for each task).

    Attributes:
      heads: the heads by name; all of them are tested side by side.
      head: the name of the head that gives the answers of the method.
      surveys_twice: whether what it surveys before a task, it surveys again right after `end`.
    """

    spread = frozenset({"images", "labels"})
    surveys_twice: ClassVar[bool] = False
    heads: Mapping[str, Head]
    head: str
    run: settings.ClassifierRun

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        del phase  # the same in all tasks
        size = self.run.train.batch_size
        return _batch(self.run.data, (size,), (size,))

    @abc.abstractmethod
    def features(self, memory: Memory, images: jax.Array) -> jax.Array:
        """Features float32 [B, d] of images uint8 [B, H, W, C]."""

    @abc.abstractmethod
    def solved(self, memory: Memory) -> Tree:
        """What `scores` reads: the heads, solved on the host from the statistics in the memory."""

    @abc.abstractmethod
    def scores(self, solved: Tree, features: jax.Array) -> dict[str, jax.Array]:
        """Scores [B, capacity] of features [B, d], by name of the head; traced.

        A class that is not learned yet has the score -inf, so it is never the answer.
        """

    @abc.abstractmethod
    def temperatures(self, memory: Memory) -> dict[str, float]:
        """T of each head: the softmax of scores / T are the probabilities."""

    def corrects(self, task: Task) -> bool:
        """Whether old statistics follow the features that `task` has moved."""
        del task
        return False

    @abc.abstractmethod
    def calibrate(
        self,
        memory: Memory,
        task: Task,
        features: np.ndarray,
        labels: np.ndarray,
        moved: Moved | None,
        score: Score,
    ) -> Memory:
        """Adds the statistics of a task's training images to the memory.

        features: [N, d], computed with the memory that `end` returned; labels: [N]. moved: how the
        task has moved features; None unless it `corrects`. score: a compiled `scores`.
        """

    def align(self, memory: Memory, key: jax.Array) -> Memory:
        """The entries of the memory that training without images changes after `calibrate`; traced.

        It is compiled once for all tasks. By default there are none.
        """
        del memory, key
        return {}

    def compared(self, task: Task) -> tuple[int, ...]:
        """The labels that the loss of `task` compares.

        They are the labels of the task. If it has one label only, they are also those of all
        earlier tasks: compared with nothing, its loss would be 0 whatever it learns (M8).
        """
        if len(task.labels) > 1:
            return task.labels
        so_far = self.stream.tasks[: task.index]
        return tuple(sorted({label for each in so_far for label in each.labels}))

    def preliminary(self, task: Task) -> Preliminary | None:
        """The short run before `task`; None = there is no short run."""
        del task

    def probing(self, frozen: Tree) -> tuple[Tree, list[Tree]]:
        """`frozen` for the training of the short run, and for each loss that it measures."""
        return frozen, [frozen]

    def with_losses(self, memory: Memory, frozen: Tree, task: Task, losses: Sequence[float]):
        """`(memory, frozen)` with the losses of the short run, each divided by ln(classes)."""
        del task, losses
        return memory, frozen

    def surveys(self, task: Task) -> bool:
        """Whether sums over all images of `task` are collected before it trains: see `survey`."""
        del task
        return False

    def survey(self, memory: Memory, compared: jax.Array, batch: dict) -> Tree:
        """Sums over the images of a batch, with the memory before the task; traced.

        compared: bool [capacity], the labels that the loss of the task compares. batch: as in
        training, without augmentation, and `weights` [B], 0 for an image that does not count.
        """
        raise NotImplementedError

    def with_survey(self, memory: Memory, task: Task, sums: Tree) -> Memory:
        """The memory from which `task` begins, from the sums of `survey` over all its images."""
        del task, sums
        return memory

    @abc.abstractmethod
    def task_losses(
        self, phase: int, trainable: Tree, frozen: Tree, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Cross-entropy [B] of each image over the `compared` classes, without augmentation."""


def bytes_of(tree: Tree) -> int:
    """Bytes of the (abstract) arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _batch(data: settings.Data, leading: tuple[int, ...], labels: tuple[int, ...]) -> dict:
    """A batch of uint8 images [*leading, H, W, C] and int32 labels [*labels]."""
    # uint8 needs a quarter of the transfer of float32; the step scales the images.
    image = (data.image_size, data.image_size, data.channels)
    return {
        "images": jax.ShapeDtypeStruct((*leading, *image), np.uint8),
        "labels": jax.ShapeDtypeStruct(labels, np.int32),
    }
