"""What the training loop knows of a continual method: the contract.

A method is a set of pure functions around one pytree, the *memory*: everything that has been
learned so far. For each task the loop asks for two separate trees, `trainable` and `frozen`;
gradients, clipping, optimiser state and averaging see only the first. Labels, rows and masks are
traced arrays, so a step is compiled once per phase however many tasks follow.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from flcl import settings
from flcl.data.loader import Pool
from flcl.data.stream import Task, TaskStream
from flcl.methods import optimisation

Memory = Any
Tree = Any
Velocity = Callable[[jax.Array, jax.Array], jax.Array]
Generate = Callable[[Memory, int, int], Any]  # (memory, label, count) -> uint8 [count, H, W, C]


class Generator(abc.ABC):
    """A continual method that generates images of every class it has learned.

    Attributes:
      run: settings of the run.
      stream: which classes arrive when.
      old_classes_fixed: a learned class never changes again, so its samples need not be drawn anew.
    """

    old_classes_fixed = False

    def __init__(self, run: settings.GeneratorRun, stream: TaskStream):
        self.run = run
        self.stream = stream

    def resolved(self) -> settings.GeneratorRun:
        """The settings with everything filled in that was looked up elsewhere."""
        return self.run

    def phase(self, task: Task) -> int:
        """1 for the first task, 2 for every later one; one step is compiled for each."""
        return 1 if task.index == 1 else 2

    def phase_settings(self, phase: int) -> settings.Phase:
        """Optimisation settings of a phase."""
        return self.run.phase1 if phase == 1 else self.run.phase2

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        """Transformation of the gradients of `trainable`."""
        return optimisation.adam(self.phase_settings(phase))

    def pools(self, task: Task, own: Mapping[int, Pool], memory: Memory, generate: Generate):
        """Images to train on in `task`: by default its own real ones, `{label: Pool}`."""
        del task, memory, generate
        return own

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Memory:
        """Memory before the first task."""

    @abc.abstractmethod
    def begin(self, memory: Memory, task: Task, key: jax.Array) -> tuple[Tree, Tree]:
        """`(trainable, frozen)` at the start of a task."""

    @abc.abstractmethod
    def loss(self, phase: int, trainable: Tree, frozen: Tree, batch: dict, key: jax.Array):
        """Scalar loss of a batch `{"images": uint8 [n, G, H, W, C], "labels": int32 [G]}`."""

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
    def class_velocity(self, memory: Memory, label: jax.Array) -> Velocity:
        """The velocity field of one class, ready for sampling."""

    @abc.abstractmethod
    def describe(self) -> dict:
        """Sizes: `trunk_parameters`, `parameters_per_class`, `adapted_convolutions` (index, name,
        shape and parameters per class of each) and `bytes_per_task`.
        """

    def diagnose(self, memory: Memory, task: Task) -> dict:
        """Method-specific figures after a task, for `results.json`; nothing by default."""
        del memory, task
        return {}
