"""Reads the CSV of an analysis again, and a naive effective rank."""

import csv
import io

import numpy as np

from flcl.analysis.frame import Frame


def read(frame: Frame) -> list[dict[str, str]]:
    """The rows of a frame as another program reads them."""
    return list(csv.DictReader(io.StringIO(frame.csv())))


def entropy_rank(matrix: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values, in float64."""
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values[values > 1e-12 * values[0]] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
