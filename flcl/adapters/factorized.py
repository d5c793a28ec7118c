"""F-LoRA: dW_t = A M_t N_t' B' with A, B shared by all tasks (FM-LoRA, Yu et al. 2025).

Adapted maps are addressed as `tree[block][site]`, such as `tree["block_00"]["q"]`. In the layout of
a kernel [in, out] the update is `a core b'` with a [in, r], b [out, r] and a core [r, r] that all
tasks together have written. The paper leaves open how tasks combine (M1), the starts (M6) and the
gauge of A and B; those choices are ours. Beside them stands DMP's prompt P [m, d], which all tasks
share and update: no copy per task and no pool; length and start are ours, too (M7).
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from flcl import settings

Shapes = dict[str, dict[str, tuple[int, int]]]


def map_sites(function: Callable, first: dict, *others: dict) -> dict:
    """`function` of the entries of each site, in a tree like `first`."""
    return {
        block: {
            site: function(entry, *(tree[block][site] for tree in others))
            for site, entry in sites.items()
        }
        for block, sites in first.items()
    }


def init_bases(key: jax.Array, shapes: Shapes, rank: int) -> dict:
    """A Kaiming-uniform(sqrt 5) and B = 0 for each site: `{"a": [in, r], "b": [out, r]}` (M6)."""
    keys = iter(jax.random.split(key, sum(map(len, shapes.values()))))

    def one(shape):
        bound = shape[0] ** -0.5  # sqrt(6 / ((1 + 5) in)), the usual start of a LoRA
        a = jax.random.uniform(next(keys), (shape[0], rank), minval=-bound, maxval=bound)
        return {"a": a, "b": jnp.zeros((shape[1], rank))}

    return map_sites(one, shapes)


def first_factors(shapes: Shapes, rank: int) -> dict:
    """M = N = I: with B = 0 the update is zero and task 1 is plain LoRA in effect (M6)."""
    return map_sites(lambda _: {"m": jnp.eye(rank), "n": jnp.eye(rank)}, shapes)


def later_factors(key: jax.Array, shapes: Shapes, rank: int) -> dict:
    """M ~ N(0, 1/r), N = 0: the update is zero and the gradient reaches N first (M6)."""
    keys = iter(jax.random.split(key, sum(map(len, shapes.values()))))

    def one(_):
        m = jax.random.normal(next(keys), (rank, rank)) * rank**-0.5
        return {"m": m, "n": jnp.zeros((rank, rank))}

    return map_sites(one, shapes)


def task_core(factors: dict, columns: jax.Array) -> dict:
    """M_t N_t' of each site, [r, r], with the columns weighted by `columns` [r] (1 = kept)."""

    def core_of(f):
        chex.assert_equal_shape([f["m"], f["n"]])
        chex.assert_shape(columns, (f["m"].shape[1],))
        # In full precision: tiny, and it is what is kept.
        return jnp.matmul(f["m"] * columns[None, :], f["n"].T, precision="highest")

    return map_sites(core_of, factors)


def regauge(bases: dict, cores: dict) -> tuple[dict, dict]:
    """The same update with orthonormal A and B: QR of both, triangular factors into the core.

    Later tasks' learning rate then does not depend on how large A and B happened to grow (ours).
    """

    def bases_of(entry):
        return {name: jnp.linalg.qr(entry[name])[0] for name in ("a", "b")}

    def core_of(entry, core):
        chex.assert_shape(core, (entry["a"].shape[1], entry["b"].shape[1]))
        left, right = (jnp.linalg.qr(entry[name])[1] for name in ("a", "b"))
        left = jnp.matmul(left, core, precision="highest")
        return jnp.matmul(left, right.T, precision="highest")

    return map_sites(bases_of, bases), map_sites(core_of, bases, cores)


def collection(bases: dict, cores: dict, scale: float = 1.0) -> dict:
    """What the transformer reads as its `adapter` collection: `{"a", "core", "b"}` per site."""
    return map_sites(lambda f, core: {**f, "core": scale * core}, bases, cores)


def init_prompt(key: jax.Array, prompt: settings.Prompt, width: int) -> jax.Array:
    """P [m, width] from a normal truncated at two of its standard deviations `prompt.sigma`."""
    shape = (prompt.tokens, width)
    return prompt.sigma * jax.random.truncated_normal(key, -2.0, 2.0, shape)
