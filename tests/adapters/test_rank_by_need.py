"""Ranks that follow the need: the energy of a core's outputs, and held-out losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from flcl import methods, settings
from flcl.adapters import factorized, rank_by_need
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream

SHAPES = {"block_00": {"q": (12, 12), "fc1": (12, 20)}, "block_03": {"v": (12, 12)}}
RANK = 6
RANDOM = np.random.default_rng(0)


def drawn(make):
    """A tree with a float32 array of `make(random)` for each map, the same in every call."""
    random = np.random.default_rng(1)
    return factorized.map_sites(lambda _: jnp.asarray(make(random), jnp.float32), SHAPES)


def moments():
    """Second moments of inputs that are far from white."""

    def moment(random):
        rows = random.normal(size=(50, RANK)) * 4.0 ** -np.arange(RANK)
        return rows.T @ rows

    return drawn(moment)


def factors_of(cores):
    """M and N with M N' = the core."""
    return factorized.map_sites(lambda core: {"m": core, "n": jnp.eye(RANK)}, cores)


def with_spectrum(values):
    """Cores with these singular values, in all maps."""

    def core(random):
        left, right = (np.linalg.qr(random.normal(size=(RANK, RANK)))[0] for _ in range(2))
        return left * np.asarray(values) @ right.T

    return drawn(core)


def kept_cores(factors):
    return factorized.task_core(factors, jnp.ones(RANK))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_truncation_is_that_of_a_weighted_singular_value_decomposition(share):
    cores, seen = with_spectrum(np.linspace(1.0, 0.1, RANK)), moments()
    factors, rank = rank_by_need.truncated(factors_of(cores), seen, share)

    def decomposed(core, moment):
        values, vectors = np.linalg.eigh(np.asarray(moment, float))
        root = vectors * np.sqrt(values) @ vectors.T
        return root, np.linalg.svd(root @ np.asarray(core, float))

    naive = factorized.map_sites(decomposed, cores, seen)
    entries = [entry for sites in naive.values() for entry in sites.values()]
    energy = sum(values**2 for _, (_, values, _) in entries)
    want = next(k for k in range(1, RANK + 1) if energy[:k].sum() >= share * energy.sum())
    assert int(rank) == want

    def best(entry):
        root, (left, values, right) = entry
        return np.linalg.solve(root, (left[:, :want] * values[:want]) @ right[:want])

    got = kept_cores(factors)
    for block, sites in naive.items():
        for site, entry in sites.items():
            np.testing.assert_allclose(got[block][site], best(entry), atol=1e-3)
            m, n = factors[block][site]["m"], factors[block][site]["n"]
            assert np.all(np.asarray(m)[:, want:] == 0) and np.all(np.asarray(n)[:, want:] == 0)


@pytest.mark.parametrize("true", [1, 3, RANK])
def test_the_rank_of_a_core_is_found_and_the_core_stays(true):
    cores = with_spectrum([1.0] * true + [0.0] * (RANK - true))
    white = drawn(lambda _: np.eye(RANK))
    factors, rank = rank_by_need.truncated(factors_of(cores), white, 0.9999)
    assert int(rank) == true
    for got, want in zip(*map(jax.tree.leaves, (kept_cores(factors), cores)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_task_that_needs_more_directions_gets_a_higher_rank():
    white, ranks = drawn(lambda _: np.eye(RANK)), []
    for decay in (0.01, 0.3, 0.6, 0.8, 1.0):
        cores = with_spectrum(decay ** np.arange(RANK))
        ranks.append(int(rank_by_need.truncated(factors_of(cores), white, 0.99)[1]))
    assert ranks == sorted(ranks) and ranks[0] == 1 and ranks[-1] == RANK and len({*ranks}) > 3


def test_a_direction_that_no_input_has_needs_no_column():
    cores = drawn(lambda _: np.eye(RANK))
    seen = drawn(lambda _: np.diag([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    factors, rank = rank_by_need.truncated(factors_of(cores), seen, 0.99)
    assert int(rank) == 2
    for core in jax.tree.leaves(kept_cores(factors)):
        np.testing.assert_allclose(core, np.diag([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]), atol=1e-6)


def test_a_task_that_changed_nothing_keeps_one_column():
    zero = drawn(lambda _: np.zeros((RANK, RANK)))
    factors, rank = rank_by_need.truncated(factors_of(zero), moments(), 0.99)
    assert int(rank) == 1
    assert all(np.all(core == 0) for core in jax.tree.leaves(kept_cores(factors)))


@pytest.mark.parametrize(
    ("losses", "tolerance", "want"),
    [
        ((0.9, 0.51, 0.5), 0.0, 10),
        ((0.9, 0.51, 0.5), 0.02, 4),
        ((0.9, 0.51, 0.5), 0.5, 2),
        ((0.4, 0.51, 0.5), 0.0, 2),  # fewer columns are better here
        ((0.5, 0.9, 0.5), 0.0, 2),
    ],
)
def test_the_least_candidate_within_the_tolerance(losses, tolerance, want):
    assert rank_by_need.least_rank(losses, (2, 4, 10), tolerance) == want


def test_the_short_run_trains_nested_columns_and_the_task_those_of_its_rank():
    selection = settings.RankSelection(candidates=(1, 2, 4))
    choice = rank_by_need.HoldoutRank(selection, 0.02, RANK)
    memory = choice.memory(3)
    assert not choice.measures(1) and choice.measures(2)
    _, frozen = choice.begin(memory, 2)
    probe, evaluated = choice.probing(frozen)

    def width(frozen, seed):
        return choice.columns({}, frozen, jax.random.key(seed), jnp.zeros(()))[0].sum()

    assert {int(width(probe, seed)) for seed in range(40)} == {1, 2, 4}
    assert [int(width(each, 0)) for each in evaluated] == [1, 2, 4]
    memory, frozen = choice.measured(memory, frozen, 2, [0.9, 0.51, 0.5])
    assert {int(width(frozen, seed)) for seed in range(5)} == {2}
    factors, _ = choice.finish(memory, 2, factors_of(with_spectrum([1.0] * RANK)))
    assert all(np.all(leaf[:, 2:] == 0) for leaf in jax.tree.leaves(factors))
    report = choice.report(memory, 2)
    np.testing.assert_allclose(report["held_out"], [0.9, 0.51, 0.5], rtol=1e-6)
    assert choice.kept(memory, 2) == 2


def test_losses_that_older_runs_stored_under_another_name_are_read():
    run = tiny.classifier_of("nowhere", rank__selector="holdout:0.01", heads__holdout=0.0)
    method = methods.build(run, make_stream(run.stream, placeholder(6)).exact())
    memory, task = method.init(jax.random.key(0)), method.stream.tasks[1]
    stored = method.stored_as(method.added(memory, task), {"['held_out']": (3, 3)})
    assert "rank_losses" not in stored
    stored["held_out"] = stored["held_out"] + 0.5
    restored = method.restore(memory, task, stored)
    np.testing.assert_array_equal(restored["rank_losses"], np.full((3, 3), 0.5))
