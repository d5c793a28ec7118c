"""The optimiser steps of a task, from its start or from its last save inside."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flcl import stopping
from flcl.data import loader
from flcl.data.encoded.check import Progress
from flcl.data.sequence.stream import Task
from flcl.devices import hosts, sharding
from flcl.evaluate.lower import Lower
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Classifier, Memory, Method
from flcl.rng import stream_key
from flcl.runs.reporter import Reporter
from flcl.runs.saved.checkpoint import Checkpoints, DamagedError
from flcl.runs.setup import Setup
from flcl.training.complexity import held_out_losses
from flcl.training.loop import TaskTraining
from flcl.training.step import Phase, phase_of


class Optimising:
    """The compiled phases of a run, and the tasks that train with them.

    lower: what is kept in place of images. sampler: that of the memory after a task; replay draws
    its images with it. check_workdir: raises `ValueError` if the workdir is gone. progress: shows
    work before the first step, and may stop it.
    """

    def __init__(
        self,
        setup: Setup,
        checkpoints: Checkpoints,
        reporter: Reporter,
        lower: Lower,
        sampler: Callable[[Task], ClassSampler],
        check_workdir: Callable[[], None],
        progress: Progress,
    ):
        self._setup, self._checkpoints, self._reporter = setup, checkpoints, reporter
        self._lower, self._sampler = lower, sampler
        self._check_workdir, self._progress = check_workdir, progress
        self._phases: dict[tuple[Method, int], Phase] = {}

    def run(self, memory: Memory, task: Task, trainable, frozen) -> tuple[Memory, object]:
        """`(memory, trainable)` after the steps of a task."""
        setup, method = self._setup, self._setup.of_task(task).method
        total = setup.steps(task)
        phase = self.phase(setup.compiled(task), method.phase(task), trainable, frozen)
        frozen = sharding.place(frozen, setup.mesh, method.divides)
        state, measured = self._start(phase, trainable, task, total)
        # A save inside a task contains the losses, so only a new task measures them.
        if measured is None and isinstance(method, Classifier):
            measured = self._held_out(phase, memory, task, trainable, frozen)
        if measured is not None:
            memory, frozen = method.with_losses(memory, frozen, task, measured)
        first = int(state.step)
        self._reporter.begin_task(task, phase.index, first)
        training = self._training(phase, task, total, measured)
        batches = self._batches(memory, task, first, total)
        # The signal must not interrupt a step, whose old state is already given up. The loop
        # stops after the step and saves.
        with stopping.held():
            state = training.run(phase, state, frozen, batches)
        if method.straightens and first < total:
            training.save(total, state)  # a stop in the next stage does not cost the training, too
        # The average of the weights is what the task keeps (F8). With a decay of 0 these are the
        # last weights.
        return memory, state.ema

    def phase(self, method: Method, index: int, trainable, frozen) -> Phase:
        """The compiled programs of a phase; tasks of the phase with equal room share them."""
        if (method, index) not in self._phases:
            phase = phase_of(method, index, trainable, frozen, self._setup.mesh)
            self._phases[method, index] = phase
        return self._phases[method, index]

    def _start(self, phase: Phase, trainable, task: Task, total: int):
        """`(state, held-out losses)` of the newest readable save of this task; or new, None."""
        # For the devices of this process, which may be more or fewer than those that wrote the
        # save.
        target = sharding.abstract(phase.abstract, self._setup.mesh, phase.method.divides)
        while (newest := self._checkpoints.running()) is not None:
            position, meta = newest
            # The state of an earlier task: a process was killed after it stored that task and
            # before it deleted the state.
            if meta["task"] != task.index:
                break
            try:
                restored = self._checkpoints.restore_running(position, target)
            except DamagedError as error:
                self._reporter.say(f"{error}; trying the one before")
                self._checkpoints.drop_running(position)
                continue
            self._reporter.say(f"continuing task {task.index} at step {meta['step']}")
            # A restored buffer cannot always be donated; a copy can.
            copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
            return copy(restored), meta.get("held_out")
        return phase.create(trainable, total), None

    def _held_out(self, phase: Phase, memory, task: Task, trainable, frozen) -> list[float] | None:
        """The losses that the short run before `task` measures; None = no short run."""
        if (short := phase.method.preliminary(task)) is None:
            return None
        images = self._lower.by_label(memory, self._setup.data.train(task))
        return held_out_losses(phase, task, trainable, frozen, images, short, self._progress)

    def _training(self, phase: Phase, task: Task, total: int, measured) -> TaskTraining:
        """The plan of a task: its length, its saves and its reports."""
        setup, name = self._setup, f"task {task.index}"
        # The number of a save counts the steps of all tasks.
        position = sum(setup.steps(t) for t in setup.data.stream.tasks[: task.index - 1])

        def save(done: int, state) -> None:
            self._check_workdir()
            meta = {"task": task.index, "step": done, "held_out": measured}
            self._checkpoints.save_running(position + done, state, meta)

        return TaskTraining(
            name=name,
            steps=total,
            key=stream_key(setup.run.seed, "train", task.index),
            remedy=phase.method.remedy(phase.index),
            log_every=setup.run.runtime.log_every,
            save_every=setup.run.runtime.save_every,
            save=save,
            stop=lambda done: hosts.stop_now(stopping.received()),
            record=self._reporter.record,
            watch=lambda state: phase.method.watched(state.ema, task),
            advance=self._reporter.progress(name, total),
        )

    def _batches(self, memory: Memory, task: Task, first: int, total: int):
        """Batches on the host for the steps `first` to `total - 1` of a task."""
        run, method = self._setup.run, self._setup.of_task(task).method

        def generate(memory, label: int, count: int) -> np.ndarray:
            # Another stream for each task: every task replays other images of an old class.
            key = stream_key(run.seed, f"replay{task.index}")
            return self._sampler(task).one_class(memory, key, label, count)[0]

        # Replay generates its images here, with the model as it is before the task.
        real = self._lower.by_label(memory, self._setup.data.train(task))
        images = method.training_images(task, real, memory, generate)
        batches = method.batches(task, images, hosts.shard())
        threads, prefetch = run.runtime.threads, run.runtime.prefetch
        return loader.iterate(batches, first, total, threads=threads, prefetch=prefetch)
