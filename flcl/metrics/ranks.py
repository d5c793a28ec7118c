"""Two ranks of batches of matrices: the effective rank and the numerical rank."""

import chex
import jax
import jax.numpy as jnp


def effective_rank(matrices: jax.Array) -> jax.Array:
    """exp of the entropy of the normalised singular values: [..., m, n] -> [...] float.

    Roy & Vetterli 2007: p_i = s_i / sum(s), rank = exp(-sum p_i ln p_i). The value is between 1 and
    min(m, n), and k for k equal singular values; 0 for the zero matrix, which the definition leaves
    open.
    """
    chex.assert_rank(matrices, set(range(2, 9)))  # [m, n] with any leading axes
    values = jnp.linalg.svd(matrices, compute_uv=False)
    total = values.sum(axis=-1)
    shares = values / jnp.where(total > 0, total, 1.0)[..., None]
    # entr(0) = 0, so a singular value of 0 adds nothing.
    entropy = jax.scipy.special.entr(shares).sum(axis=-1)
    return jnp.where(total > 0, jnp.exp(entropy), 0.0)


def numerical_rank(matrices: jax.Array, tolerance: float | None = None) -> jax.Array:
    """Number of singular values above `tolerance` * the largest: [..., m, n] -> [...] int.

    None = max(m, n) * machine epsilon, the usual choice.
    """
    # Not jnp.linalg.matrix_rank: jax 0.10 uses its relative tolerance as an absolute one.
    values = jnp.linalg.svd(matrices, compute_uv=False)
    if tolerance is None:
        tolerance = max(matrices.shape[-2:]) * jnp.finfo(values.dtype).eps
    return (values > tolerance * values.max(axis=-1, keepdims=True)).sum(axis=-1)
