"""The contract of a head: it turns features into a score for every class."""

from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

Part = Any
"""The state of a head: a tree of arrays; each class has one entry along one axis."""


class Head(Protocol):
    """A head. It uses features and labels, and no tasks, methods or networks.

    Attributes:
      key: its entry in the memory.
    """

    key: str

    def init(self, key: jax.Array, width: int, capacity: int) -> Part:
        """The part before the first task, for features [width] and up to `capacity` classes."""

    def scores(self, part: Part, features: jax.Array) -> jax.Array:
        """Scores [B, capacity] of features [B, d], also for classes that are not learned."""

    def fit(self, part: Part, features: np.ndarray, labels: np.ndarray) -> Part:
        """Adds the features [N, d] and labels [N] of a task to the statistics of `part`."""

    def take(self, part: Part, labels: np.ndarray) -> Part:
        """The entries of the classes `labels`."""

    def put(self, part: Part, labels: np.ndarray, taken: Part) -> Part:
        """Inverse of `take`: replaces the entries of these classes."""


def mask_unseen(logits: jax.Array, seen: jax.Array) -> jax.Array:
    """Logits [B, K] with -inf where `seen` [K] is False, so such a class is never the answer."""
    chex.assert_shape(seen, (logits.shape[-1],))
    chex.assert_type(seen, bool)
    # -inf has no share in a softmax, so an unseen class gets no gradient either.
    return jnp.where(seen[None, :], logits, -jnp.inf)
