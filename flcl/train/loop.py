"""The inner loop: the steps of one task, from wherever they were left."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh

from flcl.stopping import StoppedError
from flcl.train import mesh as meshes
from flcl.train.state import TrainState

Save = Callable[[int, TrainState], None]
Record = Callable[[int, dict], None]  # (step, mean metrics since the last record)


def train_task(
    step_fn,
    state: TrainState,
    frozen,
    batches: Iterable[dict],
    *,
    key: jax.Array,
    mesh: Mesh,
    spread: frozenset[str],
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
      batches: host batches for steps `state.step`, `state.step + 1`, ...
      save: called with the number of finished steps and the state, every `save_every` steps.
      stop: asked after each step, with the number of finished steps, whether to save and stop.
      record: called with the number of finished steps and their mean metrics.
      advance: called after each step with the number of finished steps.
      spread: entries of a batch that are sharded over devices.
      name: of the task, for errors.
      remedy: what to try when a loss is not finite.

    Raises:
      FloatingPointError: with the step and the keys to look at, when a loss is not finite.
      StoppedError: when `stop` said so, after the save was begun.
    """
    pending: list[dict] = []
    done = int(state.step)
    for batch in batches:
        state, metrics = step_fn(state, frozen, meshes.place_batch(batch, mesh, spread), key)
        pending.append(metrics)
        done += 1
        advance(done)
        stopping = stop(done)
        saving = stopping or (done % save_every == 0 and done < steps)
        if saving or done % log_every == 0 or done == steps:
            record(done, _drain(pending, done, name, remedy))
        if saving:
            save(done, state)
        if stopping:
            raise StoppedError(f"stopped at step {done} of {name}")
    return state


def _drain(pending: list[dict], done: int, name: str, remedy: str) -> dict:
    """Means of the pending metrics, which are emptied; raises at one that is not finite."""
    values = jax.device_get(pending)
    losses = np.asarray([entry["loss"] for entry in values])
    finite = np.asarray([np.isfinite(list(entry.values())).all() for entry in values])
    first = done - len(losses) + 1
    pending.clear()
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise FloatingPointError(
            f"loss or gradient is not finite (loss {losses[bad]}) at step {first + bad} of {name}: "
            f"{remedy}, in a new workdir"
        )
    return {key: float(np.mean([entry[key] for entry in values])) for key in values[0]}
