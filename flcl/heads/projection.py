"""Random features: relu(x P) with a fixed normal matrix P (McDonnell et al. 2023, RanPAC)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from flcl.rng import host_generator


@dataclasses.dataclass(frozen=True)
class Projection:
    """P follows from the seed, so no run stores it.

    Attributes:
      seed: of the run.
      width: d, width of the features.
      outputs: M, number of random features.
      unit: whether features are scaled to length 1 first (ours; RanPAC does not).
    """

    seed: int
    width: int
    outputs: int
    unit: bool

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """P, standard normal, float32 [d, M]."""
        generator = host_generator(self.seed, "projection")
        return generator.standard_normal((self.width, self.outputs), np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Random features [N, M] of features [N, d], in float32."""
        return np.asarray(_lift(features, self.matrix, self.unit))

    def traced(self, features: jax.Array, matrix: jax.Array) -> jax.Array:
        """The same inside a compiled program."""
        return lift(features, matrix, self.unit)


def lift(features: jax.Array, matrix: jax.Array, unit: bool) -> jax.Array:
    """relu(x P), or of x / |x| if `unit`."""
    if unit:
        norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
        features = features / jnp.maximum(norm, 1e-12)
    return jax.nn.relu(jnp.matmul(features, matrix, precision="highest"))


_lift = jax.jit(lift, static_argnums=2)
