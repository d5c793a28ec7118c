"""Kernel distance between two sets of features (Binkowski et al. 2018), with its standard error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BLOCK = 1_024  # rows of the kernel matrix that are in memory together


class KernelDistance(NamedTuple):
    """An unbiased estimate, which may be below 0, and its standard error; None = not defined."""

    value: float
    error: float | None


def kernel_distance(
    first: np.ndarray, second: np.ndarray, strata: Sequence[int] | None = None
) -> KernelDistance:
    """The squared maximum mean discrepancy of features [M, d] and [N, d], in float64.

    The kernel is (x . y / d + 1)^3. No feature is compared with itself, so the estimate is unbiased
    for any number of samples. The error is that of the jackknife, which leaves out one sample of
    either set after the other (Arvesen 1969, for U-statistics of two samples); it needs three
    samples in each set.

    strata: None = each set is drawn from one population. Sets with a fixed number of images of each
    class are not: two images of such a set are rarer of one class than images of two sets, and the
    estimate would be too small, by the order of 1 / N. For them, the number of images of each
    class, one class after the other, the same in both sets. Then the two terms inside a set count
    pairs of one class and of two classes by the shares of the classes, and the jackknife leaves out
    samples class by class.

    Raises `ValueError` for fewer than 2 samples in a set or a class, and for strata that do not add
    up to both numbers of samples.
    """
    first, second = (np.asarray(each, np.float64) for each in (first, second))
    sizes = [np.array(strata or [len(each)]) for each in (first, second)]
    if any(size.sum() != len(each) for size, each in zip(sizes, (first, second), strict=True)):
        raise ValueError(f"strata={strata}: do not add up to {len(first)} and {len(second)}")
    if min(map(np.min, sizes)) < 2:
        least = "in each class of a set" if strata else "in each set"
        raise ValueError(
            f"{len(first)} and {len(second)} features: a kernel distance needs at least 2 {least}"
        )
    sides = [
        _Side(_sums(one, one, size), _sums(one, other, other_size), size, other_size)
        for one, other, size, other_size in (
            (first, second, *sizes),
            (second, first, *sizes[::-1]),
        )
    ]
    value = float(sides[0].inside + sides[1].inside - 2 * sides[0].across)
    if min(map(np.min, sizes)) < 3:
        return KernelDistance(value, None)
    return KernelDistance(value, float(np.sqrt(sum(side.variance() for side in sides))))


def _sums(first: np.ndarray, second: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The sum of the kernel of each feature with those of each class of `second`, [M, classes].

    No feature is compared with itself.
    """
    starts, rows = np.cumsum(sizes) - sizes, []
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK]
        kernel = (block @ second.T / first.shape[1] + 1) ** 3
        if first is second:
            kernel[np.arange(len(block)), start + np.arange(len(block))] = 0
        rows.append(np.add.reduceat(kernel, starts, axis=1))
    return np.concatenate(rows)


class _Side:
    """The terms of one set, and how they change if a sample of it is left out.

    among, beyond: sums of `_sums` with the set itself and with the other set. sizes, others: the
    images of each class in both.
    """

    def __init__(self, among, beyond, sizes: np.ndarray, others: np.ndarray):
        self._among, self._beyond, self._sizes = among, beyond, sizes
        self._shares, self._beyond_shares = sizes / sizes.sum(), others / others.sum() / others
        self._class = np.repeat(np.arange(len(sizes)), sizes)
        starts = np.cumsum(sizes) - sizes
        self._pairs = np.add.reduceat(among, starts, axis=0)  # [classes, classes]
        self._cross = np.add.reduceat(beyond, starts, axis=0) @ self._beyond_shares
        self.inside = self._inside()
        self.across = float((self._shares / sizes) @ self._cross)

    def _inside(self) -> float:
        """The mean of the kernel over pairs of different images of the set."""
        weights = self._shares / self._sizes
        means = np.outer(weights, weights) * self._pairs
        # Of a class with n images, there are n - 1 others for each.
        means[np.diag_indices_from(means)] *= self._sizes / (self._sizes - 1)
        return float(means.sum())

    def variance(self) -> float:
        """The jackknife's share of the variance: from the estimates without one sample each."""
        n, share = self._sizes[self._class], self._shares[self._class]
        rows = np.arange(len(n))
        same, total = self._among[rows, self._class], np.diag(self._pairs)[self._class]
        # Pairs of one class, pairs of two classes, and pairs with the other set.
        alone = (total - 2 * same) / ((n - 1) * (n - 2)) - total / (n * (n - 1))
        weights = self._shares / self._sizes
        two = self._among @ weights - same * weights[self._class]
        all_two = (self._pairs @ weights - np.diag(self._pairs) * weights)[self._class]
        mixed = (all_two - two) / (n - 1) - all_two / n
        cross = self._cross[self._class]
        away = (cross - self._beyond @ self._beyond_shares) / (n - 1) - cross / n
        change = share**2 * alone + 2 * share * mixed - 2 * share * away
        parts = np.split(change, np.cumsum(self._sizes)[:-1])
        return float(sum((len(part) - 1) * part.var() for part in parts))
