"""The function families against naive loops, and their ranks against what the paper prints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.adapters import functional
from flcl.adapters.functions import FAMILIES
from flcl.metrics.ranks import numerical_rank

P = 10


def ids(*labels):
    """Labels as an array."""
    return np.asarray(labels, np.int32)


def factors_of(family, sigma=1.0, cin=48, cout=40, p=P, seed=0):
    """Random factors of one class, well away from the start of training."""
    rows = FAMILIES[family].init(jax.random.key(seed), cin, cout, p, 0.3)
    generator = np.random.default_rng(seed)
    rows["a"] = jnp.asarray(generator.normal(0, sigma, cout), jnp.float32)
    rows["b"] = jnp.asarray(generator.normal(0, sigma, cin), jnp.float32)
    if "alpha" in rows:
        rows["alpha"] = jnp.asarray(generator.normal(1, 0.3, p), jnp.float32)
    if "omega" in rows:
        rows["omega"] = jnp.asarray(np.arange(1, p + 1) + generator.normal(0, 0.1, p), jnp.float32)
    return rows


def naive(family, factors):
    """F entry by entry, as the paper writes it: F[o, c] = (1/p) sum_i alpha_i f_i."""
    a, b = np.asarray(factors["a"], np.float64), np.asarray(factors["b"], np.float64)
    out = np.zeros((len(b), len(a)))
    alpha = np.asarray(factors.get("alpha", [1.0]), np.float64)
    omega = np.asarray(factors.get("omega", np.arange(1, len(alpha) + 1)), np.float64)
    for c in range(len(b)):
        for o in range(len(a)):
            product = a[o] * b[c]
            for i in range(len(alpha)):
                term = {
                    "vanilla_add": product,
                    "vanilla_mult": product,
                    "shift": a[(o - i) % len(a)] * b[(c - i) % len(b)],
                    "power": product ** (i + 1),
                    "cosine": np.cos((i + 1) * product),
                    "cosine_learnable": np.cos(omega[i] * product),
                }[family]
                out[c, o] += alpha[i] * term / len(alpha)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_lift_equals_the_sum_written_out(family):
    factors = factors_of(family, sigma=0.8, cin=7, cout=5, p=4)
    got = functional.lift(factors, FAMILIES[family])
    np.testing.assert_allclose(got, naive(family, factors), rtol=2e-5, atol=2e-5)


def rank(matrix, tolerance=1e-4):
    return int(numerical_rank(np.asarray(matrix, np.float64), tolerance))


def test_shift_has_rank_p_only_when_both_vectors_move():
    factors = factors_of("shift")
    assert rank(functional.lift(factors, FAMILIES["shift"])) == P
    one_moves = sum(
        float(factors["alpha"][i])
        * np.outer(np.roll(np.asarray(factors["b"]), i), np.asarray(factors["a"]))
        for i in range(P)
    )
    assert rank(one_moves) == 1


def test_power_has_rank_at_most_p():
    assert rank(functional.lift(factors_of("power", sigma=0.5), FAMILIES["power"])) <= P


@pytest.mark.parametrize("family", ["cosine", "cosine_learnable"])
def test_cosine_of_the_product_exceeds_rank_p(family):
    factors = factors_of(family, sigma=1.5)
    assert rank(functional.lift(factors, FAMILIES[family])) > P
    separated = sum(
        np.outer(np.cos(i * np.asarray(factors["b"])), np.cos(i * np.asarray(factors["a"])))
        for i in range(1, P + 1)
    )
    assert rank(separated) <= P


def test_cosine_at_zero_is_the_mean_of_alpha_without_a_gradient():
    factors = factors_of("cosine", sigma=0.0)

    def total(a, b):
        return functional.lift({**factors, "a": a, "b": b}, FAMILIES["cosine"]).sum()

    value = functional.lift(factors, FAMILIES["cosine"])
    np.testing.assert_allclose(value, np.full(value.shape, factors["alpha"].mean()), rtol=1e-6)
    for gradient in jax.grad(total, argnums=(0, 1))(factors["a"], factors["b"]):
        assert not np.asarray(gradient).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_class_keeps_the_kernel_near_the_shared_one_and_can_learn(family):
    rows = functional.init_rows(jax.random.key(1), {"l": (64, 64)}, family, ids(0, 5), P, 0.3)["l"]

    def kernel(rows):
        matrices = functional.lift(rows, FAMILIES[family])
        return 1 + matrices if FAMILIES[family].adds else matrices

    assert 0.8 < float(kernel(rows).mean()) < 1.1
    assert float(kernel(rows).std()) < 0.3
    gradients = jax.grad(lambda rows: (kernel(rows) ** 2).sum())(rows)
    assert any(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradients))


def test_factors_of_a_class_depend_on_nothing_but_the_class():
    layers = {"x": (4, 6), "y": (6, 3)}
    key = jax.random.key(3)
    many = functional.init_rows(key, layers, "cosine_learnable", ids(0, 1, 7), P, 0.3)
    one = functional.init_rows(key, layers, "cosine_learnable", ids(7), P, 0.3)
    jax.tree.map(lambda m, o: np.testing.assert_array_equal(m[2:], o), many, one)


def test_put_leaves_every_other_row_bit_identical():
    layers = {"x": (4, 6)}
    rows = functional.init_rows(jax.random.key(0), layers, "cosine", ids(*range(5)), P, 0.3)
    bank = functional.put(functional.empty_bank(rows, 8), ids(*range(5)), rows)
    other = functional.init_rows(jax.random.key(9), layers, "cosine", ids(5, 6), P, 0.3)
    after = functional.put(bank, ids(5, 6), other)
    for old, new in zip(jax.tree.leaves(bank), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[:5], new[:5])
        np.testing.assert_array_equal(old[7], new[7])
    jax.tree.map(np.testing.assert_array_equal, functional.take(after, ids(5, 6)), other)


def test_packed_rows_come_back_and_hold_the_parameters_only():
    layers = {"x": (4, 6), "y": (3, 5)}
    rows = functional.init_rows(jax.random.key(0), layers, "cosine_learnable", ids(0, 1), P, 0.3)
    packed = functional.pack(rows)
    assert packed.shape == (2, 4 + 6 + 3 + 5 + 2 * 2 * P)
    bank = functional.empty_bank(rows, 7)
    jax.tree.map(np.testing.assert_array_equal, functional.unpack(packed, bank), rows)


def test_warm_start_copies_a_class_or_keeps_the_usual_spread():
    rows = functional.init_rows(
        jax.random.key(0), {"x": (64, 64)}, "cosine", ids(*range(8)), P, 0.5
    )
    bank = functional.put(functional.empty_bank(rows, 10), ids(*range(8)), rows)
    learned = ids(*range(8), 0, 0)  # eight, and what fills the places of classes to come

    def warm(how):
        return functional.warm_rows(jax.random.key(1), bank, learned, np.int32(8), 2, how)["x"]

    copied = warm("class")
    for g in range(2):
        assert any(np.array_equal(copied["a"][g], bank["x"]["a"][y]) for y in range(8))
    mean = warm("mean")
    plain = np.sqrt((np.asarray(bank["x"]["a"][:8]).mean(0) ** 2).mean())
    kept = np.sqrt((np.asarray(mean["a"][0]) ** 2).mean())
    assert plain < 0.3 < 0.4 < kept < 0.6
    programs = functional.warm_rows._cache_size()
    functional.warm_rows(jax.random.key(1), bank, learned, np.int32(5), 2, "mean")
    assert functional.warm_rows._cache_size() == programs  # the same for every task


def test_importance_is_zero_exactly_where_classes_agree():
    rows = functional.init_rows(
        jax.random.key(0), {"x": (6, 6), "y": (6, 6)}, "cosine_learnable", ids(*range(4)), P, 0.5
    )
    rows["y"] = jax.tree.map(lambda v: jnp.broadcast_to(v[:1], v.shape), rows["y"])
    scores = functional.importance(rows, "cosine_learnable")
    assert scores["x"][0] == 1.0 and scores["y"][0] == 0.0
    assert scores["y"][1] > 0.05


def test_no_layer_has_no_factors():
    assert functional.init_rows(jax.random.key(0), {}, "cosine_learnable", ids(0, 1), P, 0.3) == {}
