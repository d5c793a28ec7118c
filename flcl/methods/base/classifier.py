"""What a continual classifier declares beside the contract of every method."""

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from flcl import settings
from flcl.data.sequence.stream import Task
from flcl.heads.base import Head
from flcl.methods.base.method import Memory, Method, Score, Tree, batch_of


class Preliminary(NamedTuple):
    """A short run before a task that measures losses on held-out images.

    Attributes:
      epochs: passes over its training images.
      holdout: share of the task's training images that is held out to measure the loss.
    """

    epochs: float
    holdout: float


class Labelled(NamedTuple):
    """Features [N, d] of images, and their labels [N]."""

    features: np.ndarray
    labels: np.ndarray


class Moved(NamedTuple):
    """The features of some images before and after the training of a task, both [N, d]."""

    before: np.ndarray
    after: np.ndarray


class Classifier(Method):
    """A continual method that predicts the class of an image without its task id.

    A batch is `{"images": uint8 [B, H, W, C], "labels": int32 [B]}`. If the method keeps blocks,
    outputs of `lower` may take the place of images everywhere. `describe` gives
    `trunk_parameters`, `shared_parameters` (adapter parameters common to all tasks),
    `parameters_per_task` (what each later task adds), `head_parameters`, `prompt_parameters` if
    there is a prompt, `trained_parameters` and `bytes_per_task` (one number for each task).

    Attributes:
      heads: the heads by name; all of them are tested side by side.
      head: the name of the head that gives the answers of the method.
      diagnosed: the heads that are also tested with other statistics; then the memory also has
        those that never followed the features.
      surveys_twice: whether what it surveys before a task, it surveys again right after `end`.
    """

    diagnosed: tuple[str, ...] = ()

    spread = frozenset({"images", "labels"})
    surveys_twice: ClassVar[bool] = False
    heads: Mapping[str, Head]
    head: str
    run: settings.ClassifierRun

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        del phase  # the same in all tasks
        size = self.run.train.batch_size
        return batch_of(self.run.data, (size,), (size,)) | {"images": self.inputs(size)}

    @property
    def kept_blocks(self) -> int:
        """The number of blocks whose outputs are kept for each image: see `model.keep_lower`."""
        return self.run.kept_blocks

    def inputs(self, count: int) -> jax.ShapeDtypeStruct:
        """Shape and type of what a run reads for `count` images: the images, or kept outputs."""
        return batch_of(self.run.data, (count,), ())["images"]

    @abc.abstractmethod
    def lower(self, memory: Memory, images: jax.Array) -> jax.Array:
        """The outputs of the kept blocks, [B, ...], of images uint8 [B, H, W, C]; traced.

        They depend on nothing that a task changes, so the memory may be that of any task.
        """

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

    def low_rank(self, memory: Memory) -> Tree:
        """How the trunk has changed since the first task: `{block: {map: {"a", "core", "b"}}}`.

        The kernel [in, out] of each map has changed by a core b', with a [in, R], core [R, R] and b
        [out, R].
        Raises `ValueError` for a method whose features change in another way, or not at all.
        """
        del memory
        raise ValueError(f"method={self.name}: it has no low-rank update of a transformer")

    def corrects(self, task: Task) -> bool:
        """Whether old statistics follow the features that `task` has moved."""
        del task
        return False

    def makes_anew(self, task: Task) -> bool:
        """Whether the statistics of old classes are made from samples after `task`."""
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
        old: Labelled | None = None,
    ) -> Memory:
        """Adds the statistics of a task's training images to the memory.

        features: [N, d], computed with the memory that `end` returned; labels: [N]. moved: how the
        task has moved features; None unless it `corrects`. score: a compiled `scores`. old: images
        that stand for the earlier tasks, if the task `makes_anew` their statistics.
        """

    def uncorrected(self, memory: Memory) -> Memory:
        """The memory with statistics that never followed the features; only if `diagnosed`."""
        raise NotImplementedError(f"{self.name} has one kind of statistics")

    def recounted(self, memory: Memory, tasks: Sequence[tuple[Task, Labelled]]) -> Memory:
        """The memory with statistics of all training images so far, counted again."""
        raise NotImplementedError(f"{self.name} has one kind of statistics")

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
        labels = self.stream.left(task.labels)
        return labels if len(labels) > 1 else self.labels_so_far(task)

    def labels_so_far(self, task: Task) -> tuple[int, ...]:
        """The labels of `task` and of all earlier tasks, ascending, without removed classes."""
        tasks = self.stream.tasks[: task.index]
        known = {label for each in tasks for label in each.labels}
        return tuple(sorted(self.stream.left(known)))

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
