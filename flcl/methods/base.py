"""What the training loop knows of a continual method: the contract.

A method is a set of pure functions around one pytree, the *memory*: everything that has been
learned so far. For each task the loop asks for two separate trees, `trainable` and `frozen`;
gradients, clipping, optimiser state and averaging see only the first. Labels, rows, masks and ranks
are traced arrays, so a step is compiled once per phase however many tasks follow.
"""

import abc
from collections.abc import Callable, Mapping
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
Generate = Callable[[Memory, int, int], Any]  # (memory, label, count) -> uint8 [count, H, W, C]


class Resolved(NamedTuple):
    """What a run reads from files before its method is built.

    Attributes:
      run: the settings with everything filled in that was looked up.
      weights: what `Method.load` puts into the first memory; None = nothing is read.
      origin: where the weights come from, for `results.json`.
    """

    run: settings.Run
    weights: Tree | None = None
    origin: Mapping[str, Any] = {}


class Method(abc.ABC):
    """What generators and classifiers share.

    Attributes:
      name: the word of `config.method`.
      run: settings of the run.
      stream: which classes or domains arrive when.
      spread: entries of a batch whose leading axis is the batch; the others are the same
        everywhere.
      takes_turns: a train step takes its classes in a loop, of which XLA counts one turn's FLOPs.
    """

    name: ClassVar[str]
    spread: frozenset[str] = frozenset({"images"})
    takes_turns = False

    def __init__(self, run: settings.Run, stream: TaskStream):
        self.run = run
        self.stream = stream

    @classmethod
    def resolve(cls, run: settings.Run) -> Resolved:
        """What has to be read from files before the method is built: by default nothing."""
        return Resolved(run)

    def divides(self, name: str) -> bool:
        """Whether an array's last axis is divided over the devices that share parameters.

        name: such as `trunk/input/kernel`, of what trains, what is frozen, the memory, and the
          optimiser's state. By default kernels and embeddings are; all else is on every device.
        """
        return sharding.is_kernel(name)

    def phase(self, task: Task) -> int:
        """1 for the first task, 2 for every later one; one step is compiled for each."""
        return 1 if task.index == 1 else 2

    @abc.abstractmethod
    def steps(self, task: Task, images: int) -> int:
        """Optimiser steps of a task that has so many training images; 0 = nothing is trained."""

    @abc.abstractmethod
    def ema_decay(self, phase: int) -> float:
        """Decay of the averaged weights that a task keeps; 0 = the last weights."""

    @abc.abstractmethod
    def optimizer(self, phase: int) -> optax.GradientTransformation:
        """Transformation of the gradients of `trainable`.

        It may take `progress`, the finished share of the task's steps, as an extra argument.
        """

    @abc.abstractmethod
    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a training batch of a phase, of all devices together."""

    @abc.abstractmethod
    def batches(self, task: Task, images: Mapping[int, Selection], shard: tuple[int, int]):
        """Training batches as a `grain.MapDataset`: batch k is a pure function of (seed, task, k).

        images: by label; shard: (index, count), the part that this process reads.
        """

    def training_images(
        self, task: Task, real: Mapping[int, Selection], memory: Memory, generate: Generate
    ) -> Mapping[int, Selection]:
        """Images to train on in `task` by label: by default its own real ones.

        `generate` draws images of learned classes; only a generator may call it.
        """
        del task, memory, generate
        return real

    @abc.abstractmethod
    def remedy(self, phase: int) -> str:
        """What to try when a loss is not finite: the keys to look at."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Memory:
        """Memory before the first task; traced."""

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
        """Memory after a task, from its final (averaged) trainable tree."""

    @abc.abstractmethod
    def added(self, memory: Memory, task: Task) -> Tree:
        """The part of the memory that `task` wrote: all that has to be stored for it."""

    @abc.abstractmethod
    def restore(self, memory: Memory, task: Task, added: Tree) -> Memory:
        """Inverse of `added`: the memory with the task's part put back."""

    @abc.abstractmethod
    def describe(self) -> dict:
        """Sizes of the method by name, ready for JSON: see `Generator` and `Classifier`."""

    def diagnose(self, memory: Memory, task: Task) -> dict:
        """Method-specific figures after a task, for `results.json`; nothing by default."""
        del memory, task
        return {}


class Generator(Method):
    """A continual method that generates images of every class it has learned.

    A batch is `{"images": uint8 [n, G, H, W, C], "labels": int32 [G]}`. `describe` gives
    `trunk_parameters`, `parameters_per_class`, `adapted_convolutions` (index, name, shape and
    parameters per class of each) and `bytes_per_task`.

    Attributes:
      old_classes_fixed: a learned class never changes again, so its samples need not be drawn anew.
    """

    old_classes_fixed = False
    run: settings.GeneratorRun

    def phase_settings(self, phase: int) -> settings.Phase:
        """Optimisation settings of a phase."""
        return self.run.phase1 if phase == 1 else self.run.phase2

    def steps(self, task: Task, images: int) -> int:
        del images
        return self.phase_settings(self.phase(task)).steps

    def ema_decay(self, phase: int) -> float:
        return self.phase_settings(phase).ema_decay

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        return optimisation.adam(self.phase_settings(phase))

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
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
    """A short run before a task that measures how hard the task is.

    Attributes:
      epochs: passes over the images it trains on.
      holdout: share of the task's training images that is kept to measure the loss.
    """

    epochs: float
    holdout: float


class Classifier(Method):
    """A continual method that names the class of an image, without being told its task.

    A batch is `{"images": uint8 [B, H, W, C], "labels": int32 [B]}`. `describe` gives
    `trunk_parameters`, `shared_parameters` (of adapters, common to all tasks),
    `parameters_per_task` (what each later task has for itself), `head_parameters`,
    `prompt_parameters` where there is a prompt, `trained_parameters` and `bytes_per_task` (one
    number for each task).

    Attributes:
      heads: the heads of the features by name; all of them are tested side by side.
      head: name of the head whose answers are the method's.
    """

    spread = frozenset({"images", "labels"})
    heads: Mapping[str, Head]
    head = "linear"
    run: settings.ClassifierRun

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        del phase  # the same in all tasks
        size = self.run.train.batch_size
        return _batch(self.run.data, (size,), (size,))

    @abc.abstractmethod
    def features(self, memory: Memory, images: jax.Array) -> jax.Array:
        """[B, d] float32 of images uint8 [B, H, W, C]."""

    @abc.abstractmethod
    def scores(self, memory: Memory, features: jax.Array) -> dict[str, jax.Array]:
        """Scores [B, capacity] of features [B, d] by each of `heads`.

        A class that is not learned yet has -inf, so that it is never the answer.
        """

    @abc.abstractmethod
    def calibrate(self, memory: Memory, task: Task, features: np.ndarray, labels: np.ndarray):
        """Memory with the class statistics of a task's training images.

        features: [N, d] by the memory that `end` returned; labels: [N].
        """

    def preliminary(self, task: Task) -> Preliminary | None:
        """The short run that `task` starts with, None for none."""
        del task

    def probing(self, frozen: Tree) -> Tree:
        """`frozen` as the short run takes it."""
        return frozen

    def with_complexity(self, memory: Memory, frozen: Tree, task: Task, complexity: float):
        """`(memory, frozen)` that know the result of the short run."""
        del task, complexity
        return memory, frozen

    @abc.abstractmethod
    def task_losses(
        self, phase: int, trainable: Tree, frozen: Tree, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Cross-entropy over the task's classes for each of the images, [B], no augmentation."""


def _batch(data: settings.Data, leading: tuple[int, ...], labels: tuple[int, ...]) -> dict:
    """A batch of uint8 images [*leading, H, W, C] and int32 labels [*labels]."""
    image = (data.image_size, data.image_size, data.channels)
    return {
        "images": jax.ShapeDtypeStruct((*leading, *image), np.uint8),
        "labels": jax.ShapeDtypeStruct(labels, np.int32),
    }
