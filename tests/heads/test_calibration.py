"""Statistics that are made anew, never corrected, or counted again."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from flcl.data.sequence.stream import Task
from flcl.heads.base import Batch, Move
from flcl.heads.calibration import STALE, Calibration
from flcl.heads.linear import Trained

WIDTH, TASKS = 64, (Task(1, (0, 1)), Task(2, (2, 3)), Task(3, (4, 5)))
HEADS = ("class_mean", "lda", "ridge", "gaussian")


def images(labels, seed=0, count=12):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(len(labels) * count, WIDTH)).astype(np.float32)
    return Batch(features, np.repeat(labels, count))


def calibration(**changes) -> Calibration:
    changes = {"heads__fit": ("linear", *HEADS), "heads__holdout": 0.0, **changes}
    return Calibration(tiny.classifier_of(Path("x"), **changes), 6, None, Trained(WIDTH, 6))


def init(made: Calibration) -> dict:
    return made.init(jax.random.key(0)) | {"seen": np.zeros(6, bool)}


def added(made, memory, *given, **options):
    return made.add(memory, *given, lambda *_: {}, **options)


def assert_equal(made, first, second, **tolerance):
    for name in HEADS:
        for head in made.heads[name].statistics:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
                first[head.key],
                second[head.key],
            )


@pytest.fixture(scope="module")
def moved():
    """A calibration with stale states, its memory after two tasks, and the images of the tasks."""
    made = calibration(drift__diagnose=True)
    batches = [images(task.labels, seed=task.index) for task in TASKS[:2]]
    before = batches[1].features
    move = Move(before, before @ np.diag(np.linspace(0.5, 2, WIDTH)) + 1, "linear", 1e-9)
    memory = added(made, init(made), TASKS[0], batches[0], None)
    return made, added(made, memory, TASKS[1], batches[1], move), batches


def test_old_states_are_replaced_by_those_of_samples(moved):
    made, memory, _ = moved
    samples, new = images((0, 1, 2, 3), seed=8), images((4, 5), seed=9)
    anew = added(made, memory, TASKS[2], new, None, old=samples)
    fresh = added(made, init(made), Task(1, (0, 1, 2, 3)), samples, None)
    fresh = added(made, fresh, TASKS[2], new, None)
    assert_equal(made, anew, fresh, rtol=1e-4, atol=1e-4)
    assert anew["means"]["count"].tolist() == [12] * 6


def test_stale_states_never_move_and_recounted_ones_forget(moved):
    made, memory, batches = moved
    plain = calibration()
    unmoved = init(plain)
    for task, batch in zip(TASKS, batches, strict=False):
        unmoved = added(plain, unmoved, task, batch, None)
    stale = made.uncorrected(memory)
    assert_equal(made, stale, unmoved, rtol=1e-6)
    assert np.abs(memory["means"]["sum"][:2] - stale["means"]["sum"][:2]).max() > 1
    again = made.recounted(memory, list(zip(TASKS, batches, strict=False)))
    assert_equal(made, again, unmoved, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(again["head"]["kernel"], memory["head"]["kernel"])


def test_a_task_stores_its_stale_rows_once(moved):
    made, memory, _ = moved
    empty, task = init(made), TASKS[1]
    taken = made.take(memory, task, everything=True)
    assert taken[STALE]["means"]["sum"].shape == (2, WIDTH)
    restored = {**empty, **made.put(empty, task, taken)}
    np.testing.assert_array_equal(
        restored[STALE]["means"]["sum"][2:4], memory[STALE]["means"]["sum"][2:4]
    )
    np.testing.assert_array_equal(restored["means"]["sum"], memory["means"]["sum"])


def test_the_diagnosis_is_no_cost_of_the_statistics(moved):
    assert moved[0].bytes() == calibration().bytes()
    assert moved[0].solved_heads == HEADS
    assert STALE not in init(calibration())
