"""Fréchet distance between two sets of features (Heusel et al. 2017), in float64.

Each set is described by its mean and its covariance, as if it were Gaussian. The statistics are
counted batch by batch, so no set has to be in memory.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

BIASED_BELOW = 5_000
"""Samples below which the Fréchet distance is far too large: with n samples of width d its bias
falls like d / n (Chong & Forsyth 2020)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """The number, the mean [d] and the scatter [d, d] of features; all of them add up.

    scatter: the sum of (x - mean)(x - mean)' over all features.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """The statistics of one batch of features [N, d]; N is at least 1."""
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def __add__(self, other: "Gaussian") -> "Gaussian":
        """The statistics of both sets together (Chan, Golub & LeVeque 1983)."""
        count = self.count + other.count
        moved = other.mean - self.mean
        between = np.outer(moved, moved) * (self.count * other.count / count)
        mean = self.mean + moved * (other.count / count)
        return Gaussian(count, mean, self.scatter + other.scatter + between)

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A matrix A [d, r] with A A' = the covariance, scatter / (count - 1)."""
        values, vectors = np.linalg.eigh(self.scatter / (self.count - 1))
        # Rounding makes values of directions without spread slightly negative, or positive.
        kept = values > len(values) * np.finfo(float).eps * max(values[-1], 0)
        return vectors[:, kept] * np.sqrt(values[kept])


def together(sets: Iterable[Gaussian]) -> Gaussian:
    """The statistics of several sets, added in their order; at least one."""
    return functools.reduce(Gaussian.__add__, sets)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    With roots A A' = C1 and B B' = C2, the trace of the square root is the sum of the singular
    values of A' B. So no product of two covariances is rounded, and a singular covariance is no
    special case. Raises `ValueError` for a set of fewer than 2 features.
    """
    if min(first.count, second.count) < 2:
        raise ValueError(
            f"{first.count} and {second.count} features: a covariance needs at least 2 in each set"
        )
    moved = first.mean - second.mean
    spread = sum(np.trace(each.scatter) / (each.count - 1) for each in (first, second))
    shared = np.linalg.svd(first.root.T @ second.root, compute_uv=False).sum()
    return max(float(moved @ moved + spread - 2 * shared), 0.0)
