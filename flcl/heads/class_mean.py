"""The nearest class mean: cosine similarity between features and the mean of each class."""

import chex
import jax.numpy as jnp
import numpy as np

from flcl.heads.moments import Moments


class ClassMean:
    """Part: unit means [S, C, d], zeros for a class without images."""

    def __init__(self, run, width: int, capacity: int, slots: int | None):
        del run
        self.moments = Moments(width, capacity, slots)
        self.statistics = (self.moments,)

    def solve(self, states, by_domain):
        """The direction of each mean."""
        mean = self.moments.classes(states, by_domain).mean
        length = np.linalg.norm(mean, axis=-1, keepdims=True)
        return (mean / np.maximum(length, 1e-12)).astype(np.float32)

    def scores(self, part, features):
        """Cosines in full precision; 0 for a class without images."""
        chex.assert_shape(features, (None, part.shape[2]))
        norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
        unit = features / jnp.maximum(norm, 1e-12)
        return jnp.einsum("bd,scd->sbc", unit, part, precision="highest").max(axis=0)
