"""What held-out images decide: temperatures and means, without one test image."""

import numpy as np
import pytest

from flcl.heads import held_out


@pytest.fixture(scope="module")
def answers():
    """Logits [3000, 4] whose softmax is the true distribution of the labels [3000]."""
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(3000, 4))
    noise = generator.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e5])
def test_the_temperature_brings_scores_of_any_size_back(answers, scale):
    logits, labels = answers
    found = np.exp(held_out.log_temperature(scale * logits, labels))
    assert found / scale == pytest.approx(1.0, rel=0.1)


def test_classes_that_are_not_learned_have_no_share(answers):
    logits, labels = answers
    wider = np.concatenate([logits, np.full((3000, 2), -np.inf)], axis=1)
    assert held_out.log_temperature(wider, labels) == pytest.approx(
        held_out.log_temperature(logits, labels)
    )
    one = np.where(np.arange(4) == 0, logits, -np.inf)
    assert held_out.log_temperature(one, np.zeros(3000, int)) == 0.0


def test_temperatures_of_tasks_are_averaged_by_images(answers):
    logits, labels = answers
    sums = held_out.HeldOut({"lda": None})
    state = {name: np.zeros(1) for name in sums.init()}
    state = sums.add(state, {"lda": logits}, None, labels)
    state = sums.add(state, {"lda": 4 * logits[:1000]}, None, labels[:1000])
    logs = [held_out.log_temperature(logits, labels)]
    logs += [held_out.log_temperature(4 * logits[:1000], labels[:1000])]
    want = np.exp((3 * logs[0] + logs[1]) / 4)
    assert sums.temperature(state)["lda"] == pytest.approx(want)
    assert sums.temperature({name: np.zeros(1) for name in state})["lda"] == 1.0


def test_a_mean_for_each_domain_has_to_answer_more(answers):
    logits, labels = answers
    sums = held_out.HeldOut({"lda": None, "ridge": None})
    worse = np.roll(logits, 1, axis=1)
    state = {name: np.zeros(2) for name in sums.init()}
    state = sums.add(
        state, {"lda": worse, "ridge": logits}, {"lda": logits, "ridge": logits}, labels
    )
    assert sums.by_domain(state) == {"lda": True, "ridge": False}


def test_a_share_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2], [10, 4, 1])
    rows = held_out.split(labels, 0.2, np.random.default_rng(0))
    assert [rows[labels == label].sum() for label in range(3)] == [2, 0, 0]
    again = held_out.split(labels, 0.2, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, again)
