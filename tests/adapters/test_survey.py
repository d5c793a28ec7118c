"""Bases from a gradient, and how much of a gradient bases hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.adapters import survey

RANDOM = np.random.default_rng(0)
GRADIENT = {"block_00": {"q": RANDOM.normal(size=(12, 8)), "v": RANDOM.normal(size=(12, 12))}}


def test_bases_from_a_gradient_span_its_largest_singular_vectors():
    bases = survey.gradient_bases(GRADIENT, 3)
    for site, gradient in GRADIENT["block_00"].items():
        left, values, right = np.linalg.svd(gradient)
        a, b = (np.asarray(bases["block_00"][site][name], float) for name in ("a", "b"))
        np.testing.assert_allclose(3 * a @ a.T, left[:, :3] @ left[:, :3].T, atol=1e-6)
        size = gradient.shape[1]
        np.testing.assert_allclose(b @ b.T / size, right[:3].T @ right[:3], atol=1e-6)
        # Column j of A belongs to column j of B.
        core = a.T @ gradient @ b / (size / 3) ** 0.5
        np.testing.assert_allclose(core, np.diag(values[:3]), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_coverage_is_the_share_of_the_energy_whatever_the_length_of_the_bases(rank):
    bases = survey.gradient_bases(GRADIENT, rank)
    squares = [np.linalg.svd(g)[1] ** 2 for g in GRADIENT["block_00"].values()]
    want = sum(s[:rank].sum() for s in squares) / sum(s.sum() for s in squares)
    assert survey.coverage(bases, GRADIENT) == pytest.approx(want, rel=1e-6)


def test_coverage_of_random_bases_is_that_of_the_printed_formula():
    def orthonormal(size):
        return np.linalg.qr(RANDOM.normal(size=(size, 3)))[0]

    bases = {"block_00": {"q": {"a": orthonormal(12), "b": orthonormal(8)}}}
    entry, gradient = bases["block_00"]["q"], GRADIENT["block_00"]["q"]
    want = np.linalg.norm(entry["a"].T @ gradient @ entry["b"]) ** 2 / np.linalg.norm(gradient) ** 2
    got = survey.coverage(bases, {"block_00": {"q": gradient}})
    assert got == pytest.approx(want, rel=1e-6) and 0 < got < 0.5


def test_columns_of_zero_hold_nothing_and_a_gradient_of_zero_is_covered():
    bases = survey.gradient_bases(GRADIENT, 3)
    bases["block_00"]["q"]["b"] = jnp.zeros((8, 3))
    only_q = {"block_00": {"q": GRADIENT["block_00"]["q"]}}
    assert survey.coverage(bases, only_q) == 0
    assert survey.coverage(bases, {"block_00": {"q": np.zeros((12, 8))}}) == 1


def with_free_columns(rank, columns):
    """Orthonormal bases that a task before has learned, with free columns."""
    random = np.random.default_rng(7)

    def side(size):
        q = np.linalg.qr(random.normal(size=(size, rank)))[0]
        return jnp.float32(np.pad(q, ((0, 0), (0, columns - rank))))

    sites = {name: {"a": side(g.shape[0]), "b": side(g.shape[1])} for name, g in FLAT.items()}
    return {"block_00": sites}


FLAT = GRADIENT["block_00"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_bases_grow_until_they_hold_the_share_and_no_further(share):
    old = with_free_columns(2, 8)
    assert survey.coverage(old, GRADIENT) < 0.3
    new = survey.grown(old, GRADIENT, share)
    used = survey.used_columns(new)
    assert 2 < used <= 8 and survey.coverage(new, GRADIENT) >= share
    fewer = jax.tree.map(lambda v: v.at[:, used - 1 :].set(0.0), new)
    assert survey.coverage(fewer, GRADIENT) < share
    for site in FLAT:
        for name in ("a", "b"):
            before, after = (np.asarray(each["block_00"][site][name]) for each in (old, new))
            np.testing.assert_array_equal(after[:, :2], before[:, :2])
            product = after.T @ after
            np.testing.assert_allclose(product, np.diag(np.diag(product)), atol=1e-5)
            assert np.all(after[:, used:] == 0)


def test_bases_that_hold_enough_do_not_grow_and_none_grow_beyond_their_columns():
    old = with_free_columns(2, 3)
    assert survey.used_columns(survey.grown(old, GRADIENT, 1e-3)) == 2
    full = survey.grown(old, GRADIENT, 0.99)
    assert survey.used_columns(full) == 3 and survey.coverage(full, GRADIENT) < 0.99
    assert survey.used_columns(survey.grown(full, GRADIENT, 0.99)) == 3
