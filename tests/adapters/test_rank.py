"""DRS: what the printed selector cannot do, what the centred one does, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.adapters import rank

CANDIDATES = (2, 4, 6, 8, 10)
RUN = settings.RankSelection()


def chosen(complexity, first, kind, selector=None):
    selector = rank.init_selector(CANDIDATES) if selector is None else selector
    logits = rank.logits(selector, jnp.asarray(complexity), jnp.asarray(first), kind)
    return CANDIDATES[int(jnp.argmax(logits))]


@pytest.mark.parametrize("seed", range(5))
def test_the_printed_selector_cannot_follow_the_complexity(seed):
    """argmax_r of w_r H / tau is that of w_r for every H > 0, whatever w was learned."""
    weight = jax.random.normal(jax.random.key(seed), (5,))
    selector = {"weight": weight, "bias": jnp.zeros(5)}
    found = {chosen(h, 0.5, "literal", selector) for h in (1e-3, 0.1, 0.5, 1.0, 7.0, 100.0)}
    assert found == {CANDIDATES[int(np.argmax(weight))]}


def test_the_centred_selector_follows_the_complexity():
    ranks = [chosen(h, 0.5, "centred") for h in (0.1, 0.4, 0.6, 2.0)]
    assert ranks == [2, 2, 10, 10]
    # With a bias that prefers the middle the rank rises step by step.
    bias = -((jnp.arange(5) - 2.0) ** 2)
    selector = {**rank.init_selector(CANDIDATES), "bias": bias}
    ranks = [chosen(h, 0.5, "centred", selector) for h in np.linspace(-2.0, 3.0, 21)]
    assert ranks == sorted(ranks) and len(set(ranks)) == 5


def test_centring_is_relative_to_the_first_task():
    np.testing.assert_allclose(rank.centre(jnp.asarray(0.9), jnp.asarray(0.6)), 0.5, rtol=1e-5)


@pytest.mark.parametrize("first", [0.0, 1e-7, 1e-3, 0.05])
def test_a_first_task_without_errors_makes_no_other_task_look_impossible(first):
    """Relative to H_1, a task with H = 0.9 would be up to 905,220 times as hard."""
    assert float(rank.centre(jnp.asarray(0.905), jnp.asarray(first))) <= 0.905 / 0.05 + 1e-4
    assert float(rank.centre(jnp.asarray(first), jnp.asarray(first))) == 0


def test_the_start_of_w_is_standardised():
    weight = np.asarray(rank.init_selector(CANDIDATES)["weight"])
    np.testing.assert_allclose(weight, (np.array(CANDIDATES) - 6) / np.std(CANDIDATES), rtol=1e-6)
    assert np.isfinite(np.asarray(rank.init_selector((4,))["weight"])).all()


def test_temperature_falls_over_the_schedule_and_stays():
    values = [float(rank.temperature(jnp.asarray(p), RUN)) for p in (0.0, 1 / 6, 1 / 3, 0.9)]
    np.testing.assert_allclose(values, [1.0, 0.1**0.5, 0.1, 0.1], rtol=1e-5)


def test_columns_count_the_candidates_above_them():
    choice = jnp.asarray([0.1, 0.2, 0.3, 0.25, 0.15])
    got = rank.columns(choice, CANDIDATES, 10)
    want = [sum(p for p, r in zip(choice, CANDIDATES, strict=True) if r > j) for j in range(10)]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("index", range(5))
def test_a_hard_choice_keeps_exactly_its_rank(index):
    got = rank.columns(jax.nn.one_hot(index, 5), CANDIDATES, 10)
    assert np.asarray(got).tolist() == [1.0] * CANDIDATES[index] + [0.0] * (10 - CANDIDATES[index])


def test_straight_through_is_hard_forward_and_soft_backward():
    logits, tau, key = jnp.asarray([0.3, -0.2, 0.5]), jnp.asarray(0.7), jax.random.key(3)
    value = rank.straight_through(key, logits, tau)
    assert sorted(np.round(np.asarray(value), 6).tolist()) == [0.0, 0.0, 1.0]
    weights = jnp.asarray([1.0, 2.0, 5.0])
    noise = jax.random.gumbel(key, (3,))
    got = jax.grad(lambda x: rank.straight_through(key, x, tau) @ weights)(logits)
    want = jax.grad(lambda x: jax.nn.softmax(x / tau + noise) @ weights)(logits)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("tau", [1.0, 0.5, 0.1])
def test_draws_follow_the_probabilities_at_every_temperature(tau):
    logits = jnp.asarray([0.15, -0.1, 0.05, 0.2, -0.3])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(lambda k: rank.straight_through(k, logits, jnp.asarray(tau)))(keys)
    want = rank.probabilities(logits, tau)
    np.testing.assert_allclose(draws.mean(axis=0), want, atol=0.01)
    np.testing.assert_allclose(want, jax.nn.softmax(logits / tau), rtol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 1 / 6, 0.33])
def test_the_penalty_is_that_of_the_ranks_that_are_drawn(progress):
    logits, keys = (
        jnp.asarray([0.3, 0.1, 0.0, -0.1, 0.2]),
        jax.random.split(jax.random.key(1), 20_000),
    )

    def one(key):
        return rank.choose(key, logits, jnp.asarray(progress), RUN, 10)

    columns, penalties = jax.vmap(one)(keys)
    drawn = float(columns.sum(axis=1).mean())
    assert float(penalties[0]) == pytest.approx(RUN.penalty * drawn / 10, rel=0.01)


@pytest.mark.parametrize(("size", "tau"), [(1e30, 0.1), (1.0, 1e-37), (1e6, 1e-30)])
def test_an_extreme_temperature_or_complexity_gives_no_nan(size, tau):
    logits, key = size * jnp.asarray([-1.0, 0.2, 1.0]), jax.random.key(0)
    assert rank.probabilities(logits, tau).tolist() == [0.0, 0.0, 1.0]
    assert rank.straight_through(key, logits, jnp.asarray(tau)).tolist() == [0.0, 0.0, 1.0]
    slope = jax.grad(lambda x: rank.straight_through(key, x, jnp.asarray(tau)) @ jnp.arange(3.0))
    assert np.isfinite(slope(logits)).all()


def test_the_report_names_the_probabilities_at_the_final_temperature():
    choice = rank.LearnedRank(RUN, 10, 2)
    memory = choice.memory(2) | {"complexity": jnp.asarray([0.5, 0.51])}
    report = choice.report(memory, 2)
    logits = rank.logits(memory["selector"], jnp.asarray(0.51), jnp.asarray(0.5), "centred")
    np.testing.assert_allclose(report["probabilities"], jax.nn.softmax(logits / 0.1), rtol=1e-5)


def test_after_the_schedule_the_choice_is_the_argmax_without_gradient_or_penalty():
    logits = jnp.asarray([0.0, 0.1, 0.9, 0.2, 0.3])

    def columns_and_penalty(x, progress, key):
        return rank.choose(key, x, jnp.asarray(progress), RUN, 10)

    for seed in range(3):
        columns, penalty = columns_and_penalty(logits, 0.5, jax.random.key(seed))
        assert np.asarray(columns).tolist() == [1.0] * 6 + [0.0] * 4 and float(penalty) == 0.0
    weights = jnp.arange(10.0)
    grad = jax.grad(lambda x: columns_and_penalty(x, 0.5, jax.random.key(0))[0] @ weights)(logits)
    assert np.all(np.asarray(grad) == 0)
    grad = jax.grad(lambda x: columns_and_penalty(x, 0.1, jax.random.key(0))[0] @ weights)(logits)
    assert np.abs(np.asarray(grad)).max() > 0


def test_the_penalty_prefers_small_ranks():
    logits = jnp.zeros(5)
    grad = jax.grad(lambda x: rank.choose(jax.random.key(0), x, jnp.asarray(0.0), RUN, 10)[1])(
        logits
    )
    assert np.all(np.diff(np.asarray(grad)) > 0)  # a step down the gradient favours small ranks
    expected = 0.01 * 6 / 10
    value = rank.choose(jax.random.key(0), logits, jnp.asarray(0.0), RUN, 10)[1]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
