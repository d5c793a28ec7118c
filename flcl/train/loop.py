"""The inner loop: the steps of one task, from wherever they were left."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from flcl.stopping import StoppedError
from flcl.train.step import Phase, TrainState


def _nothing(*_) -> None:
    """Nobody is told."""


@dataclasses.dataclass(frozen=True)
class TaskTraining:
    """How one task is trained: for how long, and who is told what on the way.

    Attributes:
      name: of the task, for errors.
      steps: optimiser steps until it is done.
      key: randomness of all its steps.
      remedy: what to try when a loss is not finite.
      log_every: steps between records; save_every: steps between saves. What is due inside a call
        of several steps comes after it.
      save: told the number of finished steps and the state.
      stop: asked after each call, with the number of finished steps, whether to save and stop.
      record: told the number of finished steps and the mean metrics since the last record.
      advance: told the number of finished steps after each call.
    """

    name: str
    steps: int
    key: jax.Array
    remedy: str
    log_every: int
    save_every: int
    save: Callable[[int, TrainState], None] = _nothing
    stop: Callable[[int], bool] = lambda done: False
    record: Callable[[int, dict], None] = _nothing
    advance: Callable[[int], None] = _nothing

    def run(self, phase: Phase, state: TrainState, frozen, batches: Iterable[dict]) -> TrainState:
        """Trains on host batches for the steps `state.step`, `state.step + 1`, ... to the last.

        Metrics stay on the device until their record is due, so that the host never waits for a
        step. A state is saved only after every loss before it was seen to be finite.

        Raises:
          FloatingPointError: with the step and the keys to look at, when a loss is not finite.
          StoppedError: when `stop` said so, after the save was begun.
        """
        pending: list[dict] = []
        done = int(state.step)
        for call in _calls(batches, done, phase.per_call):
            state, metrics = phase.advance(state, frozen, call, self.key)
            pending += metrics
            before, done = done, done + len(call)
            self.advance(done)
            stopping = self.stop(done)
            saving = stopping or (_passed(before, done, self.save_every) and done < self.steps)
            if saving or _passed(before, done, self.log_every) or done == self.steps:
                self.record(done, self._means(pending, done))
            if saving:
                self.save(done, state)
            if stopping:
                raise StoppedError(f"stopped at step {done} of {self.name}")
        return state

    def _means(self, pending: list[dict], done: int) -> dict:
        """Means of the pending metrics, which are emptied; raises at one that is not finite."""
        calls = jax.device_get(pending)
        values = {key: np.concatenate([np.atleast_1d(c[key]) for c in calls]) for key in calls[0]}
        pending.clear()
        finite = np.all([np.isfinite(value) for value in values.values()], axis=0)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            step = done - len(finite) + 1 + bad
            raise FloatingPointError(
                f"loss or gradient is not finite (loss {values['loss'][bad]}) at step {step} of "
                f"{self.name}: {self.remedy}, in a new workdir"
            )
        return {key: float(np.mean(value)) for key, value in values.items()}


def _passed(before: int, done: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, done]."""
    return done // every > before // every


def _calls(batches: Iterable[dict], done: int, per_call: int) -> Iterator[list[dict]]:
    """The batches of each call. Calls end at multiples of `per_call`, wherever the first begins:
    a resumed run makes the same calls as one that was left alone."""
    call: list[dict] = []
    for batch in batches:
        call.append(batch)
        done += 1
        if done % per_call == 0:
            yield call
            call = []
    if call:
        yield call
