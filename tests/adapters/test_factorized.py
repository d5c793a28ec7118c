"""F-LoRA's factors: counts, starts, gauge and folding, against plain matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.adapters import factorized

SHAPES = {"block_00": {"q": (12, 12), "fc1": (12, 20)}, "block_03": {"v": (12, 12)}}
RANK = 4


def random_like(tree, seed=0):
    """A tree of the same shapes with normal entries."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def bases():
    """Random A and B."""
    return random_like(factorized.init_bases(jax.random.key(0), SHAPES, RANK))


def updates(bases, cores):
    """A core B' of each map in float64."""
    return {
        (block, site): np.asarray(entry["a"], float)
        @ np.asarray(cores[block][site], float)
        @ np.asarray(entry["b"], float).T
        for block, sites in bases.items()
        for site, entry in sites.items()
    }


def test_counts_of_vit_b16_are_those_of_the_paper():
    shapes = {f"block_{i:02d}": dict.fromkeys(("q", "v"), (768, 768)) for i in range(12)}

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    for r, shared, per_task, core in ((10, 368_640, 4_800, 2_400), (16, 589_824, 12_288, 6_144)):
        key = jax.random.key(0)
        assert (
            size(jax.eval_shape(lambda k, r=r: factorized.init_bases(k, shapes, r), key)) == shared
        )
        later = jax.eval_shape(lambda k, r=r: factorized.later_factors(k, shapes, r), key)
        assert size(later) == per_task
        cores = jax.eval_shape(lambda f, r=r: factorized.task_core(f, jnp.ones(r)), later)
        assert size(cores) == core


def test_every_task_starts_with_an_update_of_zero():
    fresh = factorized.init_bases(jax.random.key(1), SHAPES, RANK)
    first = factorized.task_core(factorized.first_factors(SHAPES, RANK), jnp.ones(RANK))
    assert all(np.all(u == 0) for u in updates(fresh, first).values())
    later = factorized.later_factors(jax.random.key(2), SHAPES, RANK)
    core = factorized.task_core(later, jnp.ones(RANK))
    assert all(np.all(u == 0) for u in updates(bases(), core).values())


def test_the_first_gradient_of_a_later_task_reaches_n_and_not_m():
    later = factorized.later_factors(jax.random.key(2), SHAPES, RANK)

    def total(factors):
        core = factorized.task_core(factors, jnp.ones(RANK))
        return sum(jnp.sum(jnp.sin(c + 1.0)) for c in jax.tree.leaves(core))

    grads = jax.grad(total)(later)
    for sites in grads.values():
        for entry in sites.values():
            assert np.abs(entry["n"]).max() > 0 and np.all(np.asarray(entry["m"]) == 0)


def test_starts_have_the_stated_spread():
    shapes = {"block_00": {"q": (400, 300)}}
    a = factorized.init_bases(jax.random.key(0), shapes, 50)["block_00"]["q"]["a"]
    assert np.abs(a).max() <= 400**-0.5 and np.abs(a).max() > 0.99 * 400**-0.5
    np.testing.assert_allclose(a.std(), 400**-0.5 / 3**0.5, rtol=0.02)
    m = factorized.later_factors(jax.random.key(0), shapes, 100)["block_00"]["q"]["m"]
    np.testing.assert_allclose(m.var(), 1 / 100, rtol=0.05)


def test_masked_columns_do_not_count():
    factors = random_like(factorized.first_factors(SHAPES, RANK), 3)
    core = factorized.task_core(factors, jnp.asarray([1.0, 1.0, 0.0, 0.0]))
    for block, sites in factors.items():
        for site, f in sites.items():
            np.testing.assert_allclose(
                core[block][site], f["m"][:, :2] @ f["n"][:, :2].T, rtol=1e-6
            )
            assert np.linalg.matrix_rank(np.asarray(core[block][site])) == 2


def test_regauge_keeps_the_update_and_makes_the_bases_orthonormal():
    cores = random_like(factorized.map_sites(lambda _: jnp.eye(RANK), SHAPES), 5)
    before = updates(bases(), cores)
    new, moved = factorized.regauge(bases(), cores)
    after = updates(new, moved)
    for name, update in before.items():
        np.testing.assert_allclose(after[name], update, atol=2e-5 * np.abs(update).max())
    for sites in new.values():
        for entry in sites.values():
            for side in entry.values():
                np.testing.assert_allclose(side.T @ side, np.eye(RANK), atol=1e-6)


def test_the_collection_holds_the_scaled_update():
    cores = random_like(factorized.map_sites(lambda _: jnp.eye(RANK), SHAPES), 5)
    adapters = factorized.collection(bases(), cores, 0.5)
    for (block, site), update in updates(bases(), cores).items():
        found = adapters[block][site]
        got = np.asarray(found["a"]) @ np.asarray(found["core"]) @ np.asarray(found["b"]).T
        np.testing.assert_allclose(got, 0.5 * update, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_folding_a_core_into_the_sum_is_the_sum_of_updates(seed):
    one, two = (
        factorized.task_core(random_like(factorized.first_factors(SHAPES, RANK), s), jnp.ones(RANK))
        for s in (seed, seed + 10)
    )
    both = updates(bases(), jax.tree.map(jnp.add, one, two))
    first, second = updates(bases(), one), updates(bases(), two)
    for name in both:
        np.testing.assert_allclose(both[name], first[name] + second[name], rtol=1e-4, atol=1e-4)
