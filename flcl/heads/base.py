"""What a head of a classifier is: from features to a score of every class."""

from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

Part = Any
"""What a head has learned: a tree of arrays in which each class owns an entry of one axis."""


class Head(Protocol):
    """A head. It knows features and labels, and nothing of tasks, methods or networks.

    Attributes:
      key: the entry of the memory that is its own.
    """

    key: str

    def init(self, key: jax.Array, width: int, capacity: int) -> Part:
        """Before the first task: features have `width` numbers, `capacity` classes may come."""

    def scores(self, part: Part, features: jax.Array) -> jax.Array:
        """[B, capacity] of features [B, d], also of classes that are not learned."""

    def fit(self, part: Part, features: np.ndarray, labels: np.ndarray) -> Part:
        """`part` with a task's features [N, d] and labels [N] added to its statistics."""

    def take(self, part: Part, labels: np.ndarray) -> Part:
        """What belongs to the classes `labels`."""

    def put(self, part: Part, labels: np.ndarray, taken: Part) -> Part:
        """Inverse of `take`: `part` with the entries of these classes replaced."""


def mask_unseen(logits: jax.Array, seen: jax.Array) -> jax.Array:
    """Logits [B, K] with -inf where `seen` [K] is False: such a class is never the answer."""
    chex.assert_shape(seen, (logits.shape[-1],))
    chex.assert_type(seen, bool)
    return jnp.where(seen[None, :], logits, -jnp.inf)
