"""The inner loop with a step that only counts."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.stopping import StoppedError
from flcl.training.loop import TaskTraining
from flcl.training.step import TrainState

BATCH = {"images": np.zeros((8, 1, 2, 2, 1), np.uint8), "labels": np.zeros(1, np.int32)}


class FakePhase:
    """A phase without programs: `advance` stands for its step."""

    index = 2
    method = types.SimpleNamespace(
        name="fake", run=types.SimpleNamespace(model="", data=types.SimpleNamespace(image_size=8))
    )

    def __init__(self, advance, per_call):
        self.advance, self.per_call = advance, per_call


def run(steps, first=0, bad=None, log_every=3, save_every=4, per_call=1, stop_at=None, seen=None):
    """What the loop calls, records, saves and advances for a step whose loss is its number."""
    seen = {} if seen is None else seen
    seen |= {"record": [], "save": [], "advance": [], "calls": [], "watched": []}

    def advance(state, frozen, batches, key):
        seen["calls"].append(len(batches))
        losses = jnp.arange(len(batches)) + state.step
        if bad is not None:
            losses = jnp.where(losses == bad, jnp.nan, losses)
        return state.replace(step=state.step + len(batches)), [{"loss": losses * 1.0}]

    def record(done, metrics):
        seen["record"].append((done, metrics["loss"]))
        if "watched" in metrics:
            assert metrics["watched"] == done
            seen["watched"].append(done)

    phase = FakePhase(advance, per_call)
    state = TrainState(jnp.asarray(first), jnp.asarray(steps), {}, {}, {})
    training = TaskTraining(
        key=jax.random.key(0),
        log_every=log_every,
        save_every=save_every,
        steps=steps,
        save=lambda done, state: seen["save"].append((done, int(state.step))),
        stop=lambda done: done == stop_at,
        record=record,
        watch=lambda state: {"watched": int(state.step)},
        advance=seen["advance"].append,
        name="task 2",
        remedy="lower phase2.learning_rate",
    )
    end = training.run(phase, state, {}, [BATCH] * (steps - first))
    assert int(end.step) == steps
    return seen


def test_records_are_means_since_the_last_one_and_saves_come_in_between():
    seen = run(10)
    assert seen["record"] == [(3, 1.0), (4, 3.0), (6, 4.5), (8, 6.5), (9, 8.0), (10, 9.0)]
    assert seen["save"] == [(4, 4), (8, 8)]
    assert seen["advance"] == list(range(1, 11))
    # Only where a run that is stopped elsewhere looks, too: not at the saves at 4 and 8.
    assert seen["watched"] == [3, 6, 9, 10]


def test_a_resumed_loop_goes_on_counting():
    seen = run(10, first=8)
    assert seen["record"] == [(9, 8.0), (10, 9.0)] and seen["save"] == []


def test_a_loss_that_is_not_finite_stops_with_step_and_key():
    message = r"\(loss nan\) at step 6 of task 2: lower phase2.learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        run(10, bad=5)


def test_no_state_with_a_bad_loss_is_saved():
    for bad, saved in ((3, []), (4, [(4, 4)])):  # the last loss before a save, the first after it
        seen = {}
        with pytest.raises(FloatingPointError, match=f"at step {bad + 1}"):
            run(10, bad=bad, log_every=100, seen=seen)
        assert seen["save"] == saved


def test_several_steps_of_a_call_end_at_multiples_wherever_they_begin():
    seen = run(10, first=3, per_call=4)
    assert seen["calls"] == [1, 4, 2] and seen["advance"] == [4, 8, 10]
    # What is due inside a call comes after it.
    assert seen["save"] == [(4, 4), (8, 8)]
    assert seen["record"] == [(4, 3.0), (8, 5.5), (10, 8.5)]
    with pytest.raises(FloatingPointError, match="at step 6 of task 2"):
        run(10, bad=5, per_call=4)


def test_what_is_due_inside_a_call_of_several_steps_comes_after_it():
    """Calls end at 4, 8 and 12: none of them is a multiple of 5, and 3 and 6 lie inside two."""
    seen = run(12, per_call=4, save_every=3, log_every=5)
    assert seen["save"] == [(4, 4), (8, 8)]
    assert [done for done, _ in seen["record"]] == [4, 8, 12]
    assert [done for done, _ in run(12, per_call=4, save_every=99, log_every=5)["record"]] == [
        8,
        12,
    ]


@pytest.mark.parametrize("at", [5, 10])
def test_a_loop_that_is_asked_to_stop_saves_first(at):
    seen = {}
    with pytest.raises(StoppedError, match=f"stopped at step {at} of task 2"):
        run(10, stop_at=at, seen=seen)
    assert seen["save"][-1] == (at, at) and seen["record"][-1][0] == at
