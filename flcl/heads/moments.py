"""Count, mean and scatter of the features of each class: all that class mean, LDA and ridge need.

Images of a class that arrive later are merged by the formula of Chan: with n old images of mean m
and k new ones of mean m', S grows by their scatter and by n k / (n + k) (m' - m)(m' - m)'. The sum
is that of all images at once.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flcl.heads import drift
from flcl.heads.base import Batch, Move, State, rows, with_rows, without_rows

_HOST_WIDTH = 2_048  # wider products are computed on the device, in float32
_ROWS = 4_096  # of one product on the device


class Classes(NamedTuple):
    """Moments in float64, for a head to solve.

    Attributes:
      count: images [S, C] of each class in each slot.
      mean: their means [S, C, d]; 0 where there is no image.
      scatter: sum of (x - mean)(x - mean)' over all images, [d, d], each with its own mean; None =
        not counted.
      removed: images [S, C] of removed classes. The scatter still has them, and no mean does.
    """

    count: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray | None
    removed: np.ndarray

    def by_class(self) -> "Classes":
        """One mean for each class, over all slots; what was between the slots is now within."""
        if len(self.count) == 1:
            return self
        count = self.count.sum(axis=0, keepdims=True)
        total = np.einsum("sc,scd->cd", self.count, self.mean)
        mean = total / np.maximum(count[0], 1)[:, None]
        scatter = self.scatter
        if scatter is not None:
            scatter = scatter + _between(self.count, self.mean, mean)
        return Classes(count, mean[None], scatter, self.removed.sum(axis=0, keepdims=True))

    def covariance(self) -> np.ndarray:
        """The shared covariance [d, d]: scatter / (images - means)."""
        scattered = self.count + self.removed
        free = scattered.sum() - np.count_nonzero(scattered)
        return self.scatter / max(free, 1)

    def overall(self) -> tuple[float, np.ndarray]:
        """Number of images and their mean [d]."""
        images = self.count.sum()
        return images, np.einsum("sc,scd->d", self.count, self.mean) / max(images, 1)


@dataclasses.dataclass(frozen=True)
class Moments:
    """State: `sum` [C, d], `count` [C], and `scatter` [d, d] if there is one.

    The count of a removed class is minus that of its images: the scatter matrix, which all classes
    share, still has them, so its degrees of freedom stay.

    Attributes:
      width: d, width of what is counted.
      capacity: C, most classes.
      slots: S, domains that have their own means; then `sum` is [S, C, d] and `count` [S, C]. None:
        one mean for each class.
      scatter: whether the scatter matrix is kept.
      key: the entry in the memory.
      lift: (features [N, D]) -> what is counted, [N, d]; None = the features.
    """

    width: int
    capacity: int
    slots: int | None = None
    scatter: bool = False
    key: str = "means"
    lift: Callable[[np.ndarray], np.ndarray] | None = None

    def init(self, key: jax.Array) -> State:
        """Zeros: there are no images yet."""
        del key
        means = (self.capacity,) if self.slots is None else (self.slots, self.capacity)
        state = {"sum": jnp.zeros((*means, self.width)), "count": jnp.zeros(means)}
        return state | ({"scatter": jnp.zeros((self.width, self.width))} if self.scatter else {})

    def add(self, state: State, batch: Batch) -> State:
        """Merges the images of a task."""
        values = self._lifted(batch.features)
        labels, which = np.unique(batch.labels, return_inverse=True)
        count = np.bincount(which).astype(np.float64)
        total = np.zeros((len(labels), self.width))
        np.add.at(total, which, values)
        added = {name: np.array(value) for name, value in state.items()}
        at = self._at(labels, batch.slot)
        if self.scatter:
            mean = total / count[:, None]
            added["scatter"] += gram(values - mean[which])
            old, known = added["count"][at], added["sum"][at]
            delta = mean - known / np.maximum(old, 1)[:, None]
            weight = old * count / (old + count)
            added["scatter"] += (delta * weight[:, None]).T @ delta
        added["sum"][at] += total
        added["count"][at] += count
        return added

    def moved(self, state: State, move: Move) -> State:
        """mean <- mean W + b and scatter <- W' scatter W."""
        before, after = self._lifted(move.before), self._lifted(move.after)
        change = drift.fit(before, after, move.correction, move.ridge)
        if change is None:
            return state
        count = np.maximum(state["count"], 0)[..., None]
        means = change.rotated(state["sum"]) + count * change.shift
        moved = {**state, "sum": means}
        if self.scatter:
            half = change.rotated(state["scatter"])
            moved["scatter"] = change.rotated(half.T).T
        return moved

    def take(self, state: State, labels: np.ndarray, slot: int, everything: bool) -> State:
        """The rows of the classes, and the scatter matrix, which every task changes."""
        return state if everything else rows(state, self._places(labels, slot))

    def put(self, state: State, labels: np.ndarray, slot: int, taken: State) -> State:
        """Inverse of `take`: everything that was stored replaces the same entries."""
        return with_rows(state, self._places(labels, slot), taken)

    def forget(self, state: State, label: int) -> State:
        """Zeros in the sums of the class, and minus in its counts."""
        at = (..., label)
        count = state["count"].at[at].set(-jnp.abs(state["count"][at]))
        return without_rows(state, {"sum": (*at, slice(None))}) | {"count": count}

    def bytes_per_class(self) -> int:
        """The mean and the count, in float32."""
        return 4 * (self.width + 1) * (self.slots or 1)

    def classes(self, states: Mapping[str, State], by_domain: bool) -> Classes:
        """The moments on the host; by_domain: with one mean for each slot, not for each class."""
        state = states[self.key]
        count, total = state["count"], state["sum"]
        if self.slots is None:
            count, total = count[None], total[None]
        mean = total / np.maximum(count, 1)[..., None]
        known, gone = np.maximum(count, 0), np.maximum(-count, 0)
        classes = Classes(known, mean, state.get("scatter"), gone)
        return classes if by_domain else classes.by_class()

    def _at(self, labels: np.ndarray, slot: int):
        return labels if self.slots is None else (slot, labels)

    def _places(self, labels: np.ndarray, slot: int) -> dict:
        return dict.fromkeys(("sum", "count"), self._at(labels, slot))

    def _lifted(self, features: np.ndarray) -> np.ndarray:
        lifted = features if self.lift is None else self.lift(features)
        return np.asarray(lifted, np.float64)


def gram(values: np.ndarray) -> np.ndarray:
    """`values' values`, [d, d] in float64.

    values: float64 [N, d]. A wide product is computed on the device in float32, at the highest
    precision, in pieces whose sums are added in float64: a host needs minutes for it.
    """
    width = values.shape[1]
    if width <= _HOST_WIDTH:
        return values.T @ values
    total = np.zeros((width, width))
    for start in range(0, len(values), _ROWS):
        some = values[start : start + _ROWS].astype(np.float32)
        # Rows of zeros add nothing; equal shapes need one program.
        padded = np.zeros((1 << (len(some) - 1).bit_length(), width), np.float32)
        padded[: len(some)] = some
        total += np.asarray(_product(padded), np.float64)
    return total


@jax.jit
def _product(values: jax.Array) -> jax.Array:
    return jnp.matmul(values.T, values, precision="highest")


def _between(count: np.ndarray, mean: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Scatter [d, d] of the means [S, C, d] around the centres [C, d]."""
    width = mean.shape[-1]
    delta = (mean - centre[None]).reshape(-1, width)
    return (delta * count.reshape(-1, 1)).T @ delta
