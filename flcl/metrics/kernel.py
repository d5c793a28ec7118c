"""Kernel distance between two sets of features (Binkowski et al. 2018), with its standard error."""

from typing import NamedTuple

import numpy as np

_BLOCK = 1_024  # rows of the kernel matrix that are in memory together


class KernelDistance(NamedTuple):
    """An unbiased estimate, which may be below 0, and its standard error; None = not defined."""

    value: float
    error: float | None


def kernel_distance(first: np.ndarray, second: np.ndarray) -> KernelDistance:
    """The squared maximum mean discrepancy of features [M, d] and [N, d], in float64.

    The kernel is (x . y / d + 1)^3. No feature is compared with itself, so the estimate is unbiased
    for any number of samples. The error is that of the jackknife, which leaves out one sample of
    either set after the other (Arvesen 1969, for U-statistics of two samples); it needs three
    samples in each set. Raises `ValueError` for fewer than 2 in one of them.
    """
    first, second = (np.asarray(each, np.float64) for each in (first, second))
    m, n = len(first), len(second)
    if min(m, n) < 2:
        raise ValueError(f"{m} and {n} features: a kernel distance needs at least 2 in each set")
    inside_first, inside_second = _inside(first), _inside(second)
    across_first, across_second = _across(first, second)
    a, b, c = inside_first.sum(), inside_second.sum(), across_first.sum()

    def estimate(a, b, c, m: int, n: int):
        return a / (m * (m - 1)) + b / (n * (n - 1)) - 2 * c / (m * n)

    value = float(estimate(a, b, c, m, n))
    if min(m, n) < 3:
        return KernelDistance(value, None)
    # Without one sample, its row and its column are missing inside, and its row across.
    left_out = (
        estimate(a - 2 * inside_first, b, c - across_first, m - 1, n),
        estimate(a, b - 2 * inside_second, c - across_second, m, n - 1),
    )
    variance = sum((len(each) - 1) * each.var() for each in left_out)
    return KernelDistance(value, float(np.sqrt(variance)))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _inside(features: np.ndarray) -> np.ndarray:
    """For each feature, the sum of the kernel with all others of its set, [N]."""
    sums = [
        _kernel(features[start : start + _BLOCK], features).sum(axis=1)
        for start in range(0, len(features), _BLOCK)
    ]
    itself = (np.einsum("nd,nd->n", features, features) / features.shape[1] + 1) ** 3
    return np.concatenate(sums) - itself


def _across(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each feature, the sum of the kernel with all of the other set: [M] and [N]."""
    rows, columns = [], np.zeros(len(second))
    for start in range(0, len(first), _BLOCK):
        block = _kernel(first[start : start + _BLOCK], second)
        rows.append(block.sum(axis=1))
        columns += block.sum(axis=0)
    return np.concatenate(rows), columns
