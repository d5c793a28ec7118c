"""The contract of a head, and of the statistics that heads share.

A *statistic* only adds up: the numbers of a task are added once, and no old image is needed. So
tasks that come one by one, in any order, give what all images at once give. A *head* solves its
part from statistics: on the host, in float64, after the sums have changed. The part then scores
features on the device in float32.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

State = Any
"""The state of a statistic: a tree of arrays, float32 in the memory and float64 on the host."""

Part = Any
"""What a head scores with: a tree of arrays."""


class Batch(NamedTuple):
    """The training images of a task.

    Attributes:
      features: float32 [N, d].
      labels: [N].
      slot: the place of the task among the domains, from 0; see `Moments.slots`.
    """

    features: np.ndarray
    labels: np.ndarray
    slot: int = 0


class Move(NamedTuple):
    """The same images before and after the training of a task: how features have moved.

    Attributes:
      before: features float32 [N, d] of the model before the task.
      after: those of the model after it, [N, d].
      correction: shift, linear or auto; see `drift.fit`.
      ridge: weight of the ridge towards the identity, relative to the mean variance.
    """

    before: np.ndarray
    after: np.ndarray
    correction: str
    ridge: float


class Statistic(Protocol):
    """Numbers about the training images that only add up.

    Attributes:
      key: its entry in the memory.
    """

    key: str

    def init(self, key: jax.Array) -> State:
        """The state before the first task. This function is traced."""

    def add(self, state: State, batch: Batch) -> State:
        """The state with the images of a task; float64 in and out."""

    def moved(self, state: State, move: Move) -> State:
        """The state of the same old images if their features had been computed after the task."""

    def take(self, state: State, labels: np.ndarray, slot: int, everything: bool) -> State:
        """What a task with `labels` stores; `everything`: because the task moved all of it."""

    def put(self, state: State, labels: np.ndarray, slot: int, taken: State) -> State:
        """Inverse of `take`."""

    def forget(self, state: State, label: int) -> State:
        """The state without the rows of a class; what all classes share stays as it is."""

    def bytes_per_class(self) -> int:
        """Bytes in the memory that each class needs."""


class Head(Protocol):
    """A head. It uses statistics and features, and no tasks, methods or networks.

    Attributes:
      statistics: the statistics that it reads.
    """

    statistics: tuple[Statistic, ...]

    def solve(self, states: Mapping[str, State], by_domain: bool) -> Part:
        """The part, from the states of the statistics by their key; float64 in, float32 out.

        by_domain: a class has one mean for each domain, and its score is the largest; it is only
        used where the statistics have slots.
        """

    def scores(self, part: Part, features: jax.Array) -> jax.Array:
        """Scores [B, capacity] of features [B, d]; those of classes without images are finite.

        This function is traced.
        """


def mask_unseen(logits: jax.Array, seen: jax.Array) -> jax.Array:
    """Logits [B, K] with -inf where `seen` [K] is False, so such a class is never the answer."""
    chex.assert_shape(seen, (logits.shape[-1],))
    chex.assert_type(seen, bool)
    # -inf has no share in a softmax, so an unseen class gets no gradient either.
    return jnp.where(seen[None, :], logits, -jnp.inf)


def joined(heads: Mapping[str, Head]) -> dict[str, Statistic]:
    """The statistics of all heads by key; of two with one key, the one that has more."""
    needed: dict[str, Statistic] = {}
    for head in heads.values():
        for statistic in head.statistics:
            known = needed.get(statistic.key, statistic)
            # Moments without a scatter matrix are part of those with one.
            needed[statistic.key] = max(known, statistic, key=lambda s: getattr(s, "scatter", 0))
    return needed


def rows(state: State, places: Mapping[str, Any]) -> State:
    """The entries of a state at their `places`, an index for each name; others are whole."""
    return {name: value[places[name]] if name in places else value for name, value in state.items()}


def with_rows(state: State, places: Mapping[str, Any], taken: State) -> State:
    """Inverse of `rows`; also of a whole state, which every entry of `taken` then replaces."""
    # Labels ascend, so the rows of all classes are in the order of the whole state, too.
    if all(taken[name].shape == value.shape for name, value in state.items()):
        return taken
    return {
        name: value.at[places[name]].set(taken[name]) if name in places else taken[name]
        for name, value in state.items()
    }


def without_rows(state: State, places: Mapping[str, Any]) -> State:
    """The state with zeros at the `places` of some entries, an index for each name."""
    return {
        name: value.at[places[name]].set(0) if name in places else value
        for name, value in state.items()
    }


def on_host(state: State) -> State:
    """Float64 NumPy arrays."""
    return jax.tree.map(lambda value: np.asarray(jax.device_get(value), np.float64), state)


def in_memory(state: State) -> State:
    """Float32 arrays for the memory and the devices."""
    return jax.tree.map(lambda value: jnp.asarray(np.asarray(value, np.float32)), state)


def affine(kernel: jax.Array, bias: jax.Array, features: jax.Array) -> jax.Array:
    """Scores [B, C]: the largest over the S entries of a class of `features @ kernel + bias`.

    kernel: [S, d, C]; bias: [S, C], -inf for an entry without images; features: [B, d].
    """
    chex.assert_shape(features, (None, kernel.shape[1]))
    scores = jnp.einsum("bd,sdc->sbc", features, kernel, precision="highest") + bias[:, None]
    # A finite score for a class without images: the caller decides which classes are learned.
    return jnp.maximum(scores.max(axis=0), jnp.finfo(scores.dtype).min)
