"""The inner loop: the steps of one task, from wherever they were left."""

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from flcl.stopping import StoppedError
from flcl.train.state import TrainState

Save = Callable[[int, TrainState], None]
Record = Callable[[int, dict], None]  # (step, mean metrics since the last record)


def train_task(
    run_steps: Callable[..., tuple[TrainState, list[dict]]],
    state: TrainState,
    frozen,
    batches: Iterable[dict],
    *,
    key: jax.Array,
    per_call: int,
    log_every: int,
    save_every: int,
    steps: int,
    save: Save,
    stop: Callable[[int], bool],
    record: Record,
    advance: Callable[[int], None],
    name: str,
    remedy: str,
) -> TrainState:
    """Trains until `steps` are done.

    Metrics stay on the device until their record is due, so that the host never waits for a step. A
    state is saved only after every loss before it was seen to be finite.

    Args:
      run_steps: `Phase.advance`.
      batches: host batches for steps `state.step`, `state.step + 1`, ...
      per_call: batches that go into one call; records and saves that are due inside a call come
        after it.
      save: called with the number of finished steps and the state, every `save_every` steps.
      stop: asked after each call, with the number of finished steps, whether to save and stop.
      record: called with the number of finished steps and their mean metrics.
      advance: called after each call with the number of finished steps.
      name: of the task, for errors.
      remedy: what to try when a loss is not finite.

    Raises:
      FloatingPointError: with the step and the keys to look at, when a loss is not finite.
      StoppedError: when `stop` said so, after the save was begun.
    """
    pending: list[dict] = []
    done = int(state.step)
    for part in _calls(batches, done, per_call):
        state, metrics = run_steps(state, frozen, part, key)
        pending += metrics
        before, done = done, done + len(part)
        advance(done)
        stopping = stop(done)
        saving = stopping or (done // save_every > before // save_every and done < steps)
        if saving or done // log_every > before // log_every or done == steps:
            record(done, _drain(pending, done, name, remedy))
        if saving:
            save(done, state)
        if stopping:
            raise StoppedError(f"stopped at step {done} of {name}")
    return state


def _calls(batches: Iterable[dict], done: int, per_call: int) -> Iterator[list[dict]]:
    """The batches of each call. Calls end at multiples of `per_call`, wherever the first begins:
    a resumed run makes the same calls as one that was left alone."""
    part: list[dict] = []
    for batch in batches:
        part.append(batch)
        done += 1
        if done % per_call == 0:
            yield part
            part = []
    if part:
        yield part


def _drain(pending: list[dict], done: int, name: str, remedy: str) -> dict:
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
            f"{name}: {remedy}, in a new workdir"
        )
    return {key: float(np.mean(value)) for key, value in values.items()}
