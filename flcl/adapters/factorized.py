"""F-LoRA: dW_t = A M_t N_t' B' with A, B shared by all tasks (FM-LoRA, Yu et al. 2025).

Adapted maps are addressed as `tree[block][site]`, such as `tree["block_00"]["q"]`. In the layout of
a kernel [in, out] the update is `a core b'` with a [in, r], b [out, r] and a core [r, r] to which
all tasks contribute. The paper leaves open how tasks are combined (M1), the initial values (M6) and
the gauge of A and B; those choices are ours. This module also has DMP's prompt P [m, d], which all
tasks share and update, without a copy per task or a pool. Its length and initial values are also
our choice (M7).
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from flcl import settings

Shapes = dict[str, dict[str, tuple[int, int]]]


def map_sites(function: Callable, first: dict, *others: dict) -> dict:
    """Applies `function` to the entries of each site; the result is a tree like `first`."""
    return {
        block: {
            site: function(entry, *(tree[block][site] for tree in others))
            for site, entry in sites.items()
        }
        for block, sites in first.items()
    }


def init_bases(key: jax.Array, shapes: Shapes, rank: int, columns: int | None = None) -> dict:
    """A Kaiming-uniform(sqrt 5) and B = 0 for each site: `{"a": [in, r], "b": [out, r]}` (M6).

    columns: with more columns than `rank`, the others are zero in A too, so none of them trains.
    """
    columns = columns or rank
    keys = iter(jax.random.split(key, sum(map(len, shapes.values()))))

    def site_bases(shape):
        bound = shape[0] ** -0.5  # sqrt(6 / ((1 + 5) in)), the usual start of a LoRA
        # B = 0 makes the update zero; A is not zero, so B has a gradient.
        a = jax.random.uniform(next(keys), (shape[0], rank), minval=-bound, maxval=bound)
        a = jnp.pad(a, ((0, 0), (0, columns - rank)))
        return {"a": a, "b": jnp.zeros((shape[1], columns))}

    return map_sites(site_bases, shapes)


def first_factors(shapes: Shapes, rank: int, bases: str = "learned") -> dict:
    """M and N of task 1: M = I, and N such that the update is zero (M6).

    bases: the start of A and B. `learned`: B = 0, so N = I, and task 1 is in effect a plain LoRA.
    `gradient`: neither is zero, so N = 0.
    """
    size = 1.0 if bases == "learned" else 0.0
    return map_sites(lambda _: {"m": jnp.eye(rank), "n": size * jnp.eye(rank)}, shapes)


def later_factors(key: jax.Array, shapes: Shapes, rank: int) -> dict:
    """M ~ N(0, 1/r), N = 0: the update is zero and the gradient reaches N first (M6)."""
    keys = iter(jax.random.split(key, sum(map(len, shapes.values()))))

    def site_factors(_):
        # Not both zero: then the gradients of M and N would both be zero, and nothing would ever
        # train.
        m = jax.random.normal(next(keys), (rank, rank)) * rank**-0.5
        return {"m": m, "n": jnp.zeros((rank, rank))}

    return map_sites(site_factors, shapes)


def task_core(factors: dict, columns: jax.Array) -> dict:
    """M_t N_t' of each site, [r, r], with the columns weighted by `columns` [r] (1 = kept)."""

    def core_of(f):
        chex.assert_equal_shape([f["m"], f["n"]])
        chex.assert_shape(columns, (f["m"].shape[1],))
        # In full precision: the product is small, and it is what the memory stores.
        return jnp.matmul(f["m"] * columns[None, :], f["n"].T, precision="highest")

    return map_sites(core_of, factors)


def regauge(bases: dict, cores: dict) -> tuple[dict, dict]:
    """The same update with orthonormal A and B: QR of both, with the R factors in the core.

    So the learning rate of later tasks does not depend on the size of the trained A and B (ours).
    """

    # A C B' = (Q_a R_a) C (Q_b R_b)' = Q_a (R_a C R_b') Q_b'.
    def bases_of(entry):
        # A column that A does not use stays free; QR would fill it with any direction.
        used = jnp.any(entry["a"] != 0, axis=0)[None]
        return {name: jnp.linalg.qr(entry[name])[0] * used for name in ("a", "b")}

    def core_of(entry, core):
        chex.assert_shape(core, (entry["a"].shape[1], entry["b"].shape[1]))
        left, right = (jnp.linalg.qr(entry[name])[1] for name in ("a", "b"))
        left = jnp.matmul(left, core, precision="highest")
        return jnp.matmul(left, right.T, precision="highest")

    return map_sites(bases_of, bases), map_sites(core_of, bases, cores)


def collection(bases: dict, cores: dict, scale: float = 1.0) -> dict:
    """The `adapter` collection of the transformer: `{"a", "core", "b"}` per site."""
    # The factor is part of the core, so the transformer needs no key for it.
    return map_sites(lambda f, core: {**f, "core": scale * core}, bases, cores)


def init_prompt(
    key: jax.Array, prompt: settings.Prompt, width: int, depth: int
) -> jax.Array | dict:
    """P [m, width] from a normal distribution with deviation `prompt.sigma`, truncated at two.

    With `prompt.init=gated` it is `{"tokens": P, "gates": zeros [depth]}`: in no block do other
    tokens see the prompt.
    """
    shape = (prompt.tokens, width)
    tokens = prompt.sigma * jax.random.truncated_normal(key, -2.0, 2.0, shape)
    return {"tokens": tokens, "gates": jnp.zeros(depth)} if prompt.init == "gated" else tokens
