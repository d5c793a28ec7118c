"""The inner loop: the steps of one task, from the first or from the last save."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from flcl import waiting
from flcl.methods.base import STRAIGHTENING
from flcl.stopping import StoppedError
from flcl.training.step import Phase, TrainState

_TASKS = {1: "the first task", 2: "all later tasks", STRAIGHTENING: "straight paths"}


@dataclasses.dataclass(frozen=True)
class TaskTraining:
    """The plan for training one task: its length and its callbacks.

    Attributes:
      name: the name of the task, for errors.
      steps: optimiser steps of the task.
      key: random key of all its steps.
      remedy: advice for a loss that is not finite.
      log_every: steps between records; save_every: steps between saves. A record or save that is
        due inside a call of several steps follows the call.
      save: called with the number of finished steps and the state.
      stop: called with the number of finished steps after each call; True = save and stop.
      record: called with the number of finished steps and the mean metrics since the last record.
      watch: called with the state at multiples of `log_every` and at the last step; its numbers are
        recorded, too.
      advance: called with the number of finished steps after each call.
    """

    name: str
    steps: int
    key: jax.Array
    remedy: str
    log_every: int
    save_every: int
    save: Callable[[int, TrainState], None] = lambda done, state: None
    stop: Callable[[int], bool] = lambda done: False
    record: Callable[[int, dict], None] = lambda done, metrics: None
    watch: Callable[[TrainState], dict] = lambda state: {}
    advance: Callable[[int], None] = lambda done: None

    def run(self, phase: Phase, state: TrainState, frozen, batches: Iterable[dict]) -> TrainState:
        """Trains from step `state.step` to the last step, on batches in host memory.

        Metrics stay on the device until the next record, so the host does not wait for each step.
        A state is saved only after all earlier losses were checked to be finite.

        Raises:
          FloatingPointError: with the step and the keys to change, if a loss is not finite.
          StoppedError: if `stop` returned True, after the save has started.
        """
        pending: list[dict] = []
        # The step is part of the state, so a restored state cannot continue at a wrong place.
        done = int(state.step)
        for call in _calls(batches, done, phase.per_call):
            state, metrics = advance(phase, state, frozen, call, self.key)
            pending += metrics
            before, done = done, done + len(call)
            self.advance(done)
            stopping = self.stop(done)
            # There is no save at the last step: the task is stored right after it, and that save
            # is the one that counts.
            saving = stopping or (_passed(before, done, self.save_every) and done < self.steps)
            due = _passed(before, done, self.log_every) or done == self.steps
            if saving or due:
                metrics = self._means(pending, done)
                # Not at a save alone, because a stop makes a save anywhere.
                self.record(done, metrics | self.watch(state) if due else metrics)
            if saving:
                self.save(done, state)
            # Only after the save was started: `Checkpoints` waits for it before the program ends.
            if stopping:
                raise StoppedError(f"stopped at step {done} of {self.name}")
        return state

    def _means(self, pending: list[dict], done: int) -> dict:
        """Means of the pending metrics; empties the list and raises if a value is not finite."""
        calls = jax.device_get(pending)
        values = {key: np.concatenate([np.atleast_1d(c[key]) for c in calls]) for key in calls[0]}
        pending.clear()
        finite = np.all([np.isfinite(value) for value in values.values()], axis=0)
        if not finite.all():
            # The first bad step is the cause. All later steps are bad because of it.
            bad = int(np.flatnonzero(~finite)[0])
            step = done - len(finite) + 1 + bad
            raise FloatingPointError(
                f"loss or gradient is not finite (loss {values['loss'][bad]}) at step {step} of "
                f"{self.name}: {self.remedy}, in a new workdir"
            )
        return {key: float(np.mean(value)) for key, value in values.items()}


def advance(phase: Phase, state, frozen, call: list[dict], key) -> tuple[TrainState, list[dict]]:
    """`Phase.advance`, which is compiled at its first call: then somebody is told."""
    method = phase.method
    tasks = _TASKS[phase.index]
    about = (method.name, method.run.model, method.run.data.image_size)
    with waiting.first_call(phase, f"the training step of {tasks}", about, len(call)):
        return phase.advance(state, frozen, call, key)


def _passed(before: int, done: int, every: int) -> bool:
    """Whether (before, done] contains a multiple of `every`."""
    return done // every > before // every


def _calls(batches: Iterable[dict], done: int, per_call: int) -> Iterator[list[dict]]:
    """The batches of each call. Calls end at multiples of `per_call` steps, wherever the first
    call begins: a resumed run makes the same calls as an uninterrupted run."""
    call: list[dict] = []
    for batch in batches:
        call.append(batch)
        done += 1
        if done % per_call == 0:
            yield call
            call = []
    # The last steps of a task may be fewer than `per_call`; `Phase.advance` makes them one by
    # one.
    if call:
        yield call
