"""Features that are drawn from Gaussians of learned classes: a replay without images.

The Gaussians come from statistics that only add up. With domains, each class has a Gaussian for
each domain.
"""

import jax
import jax.numpy as jnp

from flcl.heads.gaussian import Covariances
from flcl.heads.lda import towards_identity
from flcl.heads.moments import Moments

_VARIANCE = 1e-4
"""SLCA's public code adds it to every variance of a class."""


class Drawn:
    """N(m_e, Sigma) for every entry e, which is a class in a slot: E = S C entries.

    covariance: `shared`: Sigma is the shrunk covariance of all classes, as in LDA (and, without
    shrinkage, in SLCA++). `class`: Sigma_e = axes_e' axes_e / (n_e - 1) + 1e-4 I with the stored
    axes of the class; with as many axes as images this is its sample covariance (SLCA).
    """

    def __init__(self, run, width: int, capacity: int, slots: int | None, covariance: str):
        self.capacity, self.shrinkage = capacity, run.heads.shrinkage
        self.moments = Moments(width, capacity, slots, scatter=True)
        # The shared covariance alone needs no axes.
        own = covariance == "class"
        self.axes = Covariances(width, capacity, slots or 1, run.gaussian.rank) if own else None
        self.statistics = (self.moments, *([self.axes] if own else []))

    def solve(self, memory) -> dict:
        """`mean` [E, d], `known` bool [E], and `factor` [d, d] or `axes` [E, k, d]; traced."""
        state = memory[self.moments.key]
        width = self.moments.width
        count, total = state["count"].reshape(-1), state["sum"].reshape(-1, width)
        mean = total / jnp.maximum(count, 1)[:, None]
        part = {"mean": mean, "known": count > 0}
        if self.axes is not None:
            axes = memory[self.axes.key]["axes"].reshape(len(count), -1, width)
            return part | {"axes": axes / jnp.sqrt(jnp.maximum(count - 1, 1))[:, None, None]}
        # Counts below 0 are images of removed classes, which the scatter still has.
        free = jnp.maximum(jnp.abs(count).sum() - (count != 0).sum(), 1)
        # In float32, because a sample needs no more; its rounding asks for a larger minimum.
        covariance = towards_identity(state["scatter"] / free, max(self.shrinkage, 1e-4), jnp)
        return part | {"factor": jnp.linalg.cholesky(covariance)}

    def draw(self, part: dict, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """Features [count, d] of known entries, each as likely as any other, and the entries."""
        key_entry, key_axes, key_all = jax.random.split(key, 3)
        logits = jnp.where(part["known"], 0.0, -jnp.inf)
        entries = jax.random.categorical(key_entry, logits, shape=(count,))
        mean = part["mean"][entries]
        noise = jax.random.normal(key_all, mean.shape)
        if "factor" in part:
            return mean + jnp.matmul(noise, part["factor"].T, precision="highest"), entries
        axes = part["axes"][entries]
        along = jax.random.normal(key_axes, axes.shape[:2])
        spread = jnp.einsum("bk,bkd->bd", along, axes, precision="highest")
        return mean + spread + _VARIANCE**0.5 * noise, entries

    def labels(self, entries: jax.Array) -> jax.Array:
        """The class of each entry."""
        return entries % self.capacity
