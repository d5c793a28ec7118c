"""The inner loop with a step that only counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.train import mesh as meshes
from flcl.train.loop import train_task
from flcl.train.state import TrainState

BATCH = {"images": np.zeros((8, 1, 2, 2, 1), np.uint8), "labels": np.zeros(1, np.int32)}


def run(steps, first=0, bad=None, log_every=3, save_every=4):
    """What the loop records, saves and advances for a step whose loss is its number."""
    seen = {"record": [], "save": [], "advance": []}

    def step(state, frozen, batch, key):
        loss = jnp.where(state.step == bad, jnp.nan, state.step) if bad is not None else state.step
        return state.replace(step=state.step + 1), {"loss": loss * 1.0}

    state = TrainState(jnp.asarray(first), jnp.asarray(steps), {}, {}, {})
    end = train_task(
        jax.jit(step),
        state,
        {},
        [BATCH] * (steps - first),
        key=jax.random.key(0),
        mesh=meshes.make_mesh(),
        spread=frozenset({"images"}),
        log_every=log_every,
        save_every=save_every,
        steps=steps,
        save=lambda done, state: seen["save"].append((done, int(state.step))),
        record=lambda done, metrics: seen["record"].append((done, metrics["loss"])),
        advance=seen["advance"].append,
        name="task 2",
        remedy="lower phase2.learning_rate",
    )
    assert int(end.step) == steps
    return seen


def test_records_are_means_since_the_last_one_and_saves_come_in_between():
    seen = run(10)
    assert seen["record"] == [(3, 1.0), (4, 3.0), (6, 4.5), (8, 6.5), (9, 8.0), (10, 9.0)]
    assert seen["save"] == [(4, 4), (8, 8)]
    assert seen["advance"] == list(range(1, 11))


def test_a_resumed_loop_goes_on_counting():
    seen = run(10, first=8)
    assert seen["record"] == [(9, 8.0), (10, 9.0)] and seen["save"] == []


def test_a_loss_that_is_not_finite_stops_with_step_and_key():
    message = r"\(loss nan\) at step 6 of task 2: lower phase2.learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        run(10, bad=5)


def test_no_state_with_a_bad_loss_is_saved():
    saved = []
    with pytest.raises(FloatingPointError, match="at step 4"):
        saved.append(run(10, bad=3, log_every=100))
    assert saved == []
