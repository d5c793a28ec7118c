"""The functions f_i that lift a rank-1 product A B to a matrix of higher rank (FunLoRA).

A family turns one class's vectors `a` [Cout] and `b` [Cin] into F [Cin, Cout] (the order of a flax
kernel; the paper writes F as [Cout, Cin]):

    F = (1/p) sum_i alpha_i f_i(a, b),    W_y = W0 * F  or, for `vanilla_add`,  W0 + F

All formulas are element-wise over `outer(b, a)`. A new family is a few lines and an entry in
`FAMILIES`. F1-F4 are the choices listed in `configs/README.md`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from flcl.ops.cosines import mean_of_cosines

Factors = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Family:
    """One function family.

    Attributes:
      lift: factors `a` [Cout], `b` [Cin] and, if used, `alpha` [p], `omega` [p] -> F [Cin, Cout].
      init: (key, cin, cout, p, sigma) -> factors of one class.
      adds: whether F is added to the kernel instead of multiplied.
      separable: F = outer(b, a), so the convolution factors into scale, conv, scale.
    """

    lift: Callable[[Factors], jax.Array]
    init: Callable[[jax.Array, int, int, int, float], Factors]
    adds: bool = False
    separable: bool = False


def _outer(factors: Factors) -> jax.Array:
    return factors["b"][:, None] * factors["a"][None, :]


def _weighted_outer(alpha: jax.Array, b: jax.Array, a: jax.Array) -> jax.Array:
    """(1/p) sum_i alpha_i outer(b_i, a_i), in full float32 on every platform."""
    # One matrix product: p matrices of the size of F never exist at the same time.
    weighted = alpha[:, None] * b
    return jnp.einsum("pi,po->io", weighted, a, precision="highest") / alpha.shape[0]


def _lift_shift(factors: Factors) -> jax.Array:
    """f_i = roll(A, i) roll(B, i), i = 0..p-1: if only one rolled, the rank would be 1 (F2)."""
    # With offset 0 among the functions, the plain product A B is one of them (F2).
    count = factors["alpha"].shape[0]
    a = jnp.stack([jnp.roll(factors["a"], i) for i in range(count)])
    b = jnp.stack([jnp.roll(factors["b"], i) for i in range(count)])
    return _weighted_outer(factors["alpha"], b, a)


def _lift_power(factors: Factors) -> jax.Array:
    """f_i = (A B)^i element-wise, i = 1..p; rank at most p because (A B)^i = A^i B^i."""
    # Entries far above 1 explode at the tenth power, so this family starts near 1.
    powers = jnp.arange(1, factors["alpha"].shape[0] + 1)
    a = factors["a"][None, :] ** powers[:, None]
    b = factors["b"][None, :] ** powers[:, None]
    return _weighted_outer(factors["alpha"], b, a)


def _lift_cosine(factors: Factors) -> jax.Array:
    """f_i = cos(omega_i A B) of the product matrix: only this reading gives rank > p (F1)."""
    alpha = factors["alpha"]
    # The family `cosine` has no omega of its own; its frequencies are 1 .. p (F4).
    omega = factors.get("omega", jnp.arange(1, alpha.shape[0] + 1, dtype=alpha.dtype))
    return mean_of_cosines(alpha, omega, factors["b"], factors["a"])


def _normal(key: jax.Array, cin: int, cout: int, mean: float, sigma: float) -> Factors:
    key_a, key_b = jax.random.split(key)
    return {
        "a": mean + sigma * jax.random.normal(key_a, (cout,)),
        "b": mean + sigma * jax.random.normal(key_b, (cin,)),
    }


# The vanilla, shift and power families start near 1 with a small deviation, because the trunk works
# only if F is near 1 (F4). They do not use `sigma`, which is for the cosine.
_NEAR_ONE = 0.02


def _init_near_one(key, cin, cout, p, sigma) -> Factors:
    del p, sigma
    return _normal(key, cin, cout, 1.0, _NEAR_ONE)


def _init_weighted(key, cin, cout, p, sigma) -> Factors:
    return {**_init_near_one(key, cin, cout, p, sigma), "alpha": jnp.ones(p)}


def _init_add(key, cin, cout, p, sigma) -> Factors:
    """B = 0: the kernel starts as W0, and B has a gradient because A is not zero."""
    del p
    return {**_normal(key, cin, cout, 0.0, sigma), "b": jnp.zeros(cin)}


def _init_cosine(key, cin, cout, p, sigma) -> Factors:
    """Not zero: at A = B = 0 the gradient of the cosine with respect to A and B is zero."""
    # With sigma = 0.3, p = 10 and omega = 1 .. p, F has a mean of 0.9 and a deviation of 0.2
    # (F4).
    return {**_normal(key, cin, cout, 0.0, sigma), "alpha": jnp.ones(p)}


def _init_cosine_learnable(key, cin, cout, p, sigma) -> Factors:
    # p alphas and p omegas per class and layer: this gives the printed counts, 35,354 and 10,028
    # (F3).
    return {**_init_cosine(key, cin, cout, p, sigma), "omega": jnp.arange(1.0, p + 1.0)}


FAMILIES: dict[str, Family] = {
    # The two baselines of the paper with plain rank-1 factors.
    "vanilla_add": Family(_outer, _init_add, adds=True),
    "vanilla_mult": Family(_outer, _init_near_one, separable=True),
    # The three families of the paper; the cosine with fixed and with learned frequencies.
    "shift": Family(_lift_shift, _init_weighted),
    "power": Family(_lift_power, _init_weighted),
    "cosine": Family(_lift_cosine, _init_cosine),
    "cosine_learnable": Family(_lift_cosine, _init_cosine_learnable),
}
