"""How features move when the network is trained further: a map from old features to new ones.

The images of the new task go through the network before and after its training. The map that takes
the first features to the second is applied to the statistics of all earlier tasks, of which there
are no images any more.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg

_ENOUGH = 2
"""`auto` fits a linear map from this many images per feature; with fewer it does harm."""


class Affine(NamedTuple):
    """x -> x W + b.

    Attributes:
      weight: W [d, d]; None = the identity.
      shift: b [d].
    """

    weight: np.ndarray | None
    shift: np.ndarray

    def rotated(self, values: np.ndarray) -> np.ndarray:
        """`values W`, [..., d]."""
        return values if self.weight is None else values @ self.weight


def fit(before: np.ndarray, after: np.ndarray, correction: str, ridge: float) -> Affine | None:
    """The map from `before` to `after`; None if nothing has moved.

    Args:
      before: float64 [N, d] features of some images before a task.
      after: those of the same images after it, [N, d].
      correction: shift: the difference of the means; linear: W minimises |x W - y|^2 + lambda |W -
        I|^2 for centred features; auto: linear if N >= 2 d, otherwise shift; none: nothing.
      ridge: lambda relative to the mean eigenvalue of x' x.
    """
    # Bit for bit: a map that is nearly the identity would still change the last digits.
    if correction == "none" or np.array_equal(before, after):
        return None
    old, new = before.mean(axis=0), after.mean(axis=0)
    enough = len(before) >= _ENOUGH * before.shape[1]
    if correction == "shift" or (correction == "auto" and not enough):
        return Affine(None, new - old)
    weight = np.eye(before.shape[1]) + _towards_identity(before - old, after - new, ridge)
    return Affine(weight, new - old @ weight)


def _towards_identity(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """W - I = (x' x + lambda I)^-1 x' (y - x), [d, d]."""
    images, width = x.shape
    weight = max(ridge * np.square(x).sum() / width, np.finfo(np.float64).tiny)
    if images >= width:
        system = x.T @ x + weight * np.eye(width)
        return linalg.solve(system, x.T @ (y - x), assume_a="pos")
    # The same by the smaller system: x' (x x' + lambda I)^-1 (y - x).
    system = x @ x.T + weight * np.eye(images)
    return x.T @ linalg.solve(system, y - x, assume_a="pos")
