"""The statistics of a cell: mean and deviation, paired differences, the error of a test set."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

LEAST = 3
"""Pairs below which a difference counts as not shown."""


class Cell(NamedTuple):
    """A number of the table, in the unit of its column; None = not defined.

    Attributes:
      mean: over n runs.
      sd: their standard deviation, with n - 1; None for fewer than two.
      n: the number of runs, or of pairs of a difference.
      low, high: the 95 % interval of a difference; None for other columns.
      shown: whether a difference is shown by these runs; True in other columns.
    """

    mean: float | None = None
    sd: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    shown: bool = True


def over_runs(values: Sequence[float | None]) -> Cell:
    """Mean and standard deviation over runs; those without a value do not count."""
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return Cell()
    deviation = float(known.std(ddof=1)) if known.size > 1 else None
    return Cell(float(known.mean()), deviation, known.size)


def paired(values: Sequence[float | None], reference: Sequence[float | None]) -> Cell:
    """The mean difference of pairs, with its 95 % interval by Student's t with n - 1 degrees.

    values, reference: one number for each seed and order. A difference is not shown if its interval
    contains 0, or for fewer than `LEAST` pairs.
    """
    pairs = zip(values, reference, strict=True)
    cell = over_runs([a - b for a, b in pairs if a is not None and b is not None])
    if cell.sd is None:
        return cell._replace(shown=False)
    half = float(special.stdtrit(cell.n - 1, 0.975)) * cell.sd / math.sqrt(cell.n)
    low, high = cell.mean - half, cell.mean + half
    # Differences that are equal but for rounding have no interval to speak of.
    shown = cell.n >= LEAST and (low > 1e-12 or high < -1e-12)
    return cell._replace(low=low, high=high, shown=shown)


def error_of_share(share: float, images: int) -> float:
    """The standard error of an accuracy on `images` test images: sqrt(p (1 - p) / N), binomial."""
    return math.sqrt(max(share * (1 - share), 0.0) / images)
