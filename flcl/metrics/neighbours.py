"""Metrics of generated images from nearest neighbours among features: what is covered, and copied.

Distances are Euclidean, in float64. Matrices of distances are made block by block, so that 10,000
real and 10,000 generated images need some 100 MB and not 2 GB.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

NEIGHBOURS = 5
"""k of Naeem et al. (2020); Kynkäänniemi et al. (2019) use 3."""

_BLOCK = 1_024  # rows of a matrix of distances that are in memory together


class Manifolds(NamedTuple):
    """Shares from balls around features; the ball of a feature reaches to its k-th neighbour.

    Attributes:
      precision: generated images inside some ball of a real image (Kynkäänniemi et al. 2019).
      recall: real images inside some ball of a generated image (the same).
      density: mean number of balls of real images around a generated one, divided by k; may be
        above 1 (Naeem et al. 2020).
      coverage: real images with a generated image in their ball (the same).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS) -> Manifolds:
    """Precision, recall, density and coverage of features [N, d] and [M, d].

    The numbers depend on N and M: compare only those of equal numbers. Raises `ValueError` unless
    both sets have more than k features.
    """
    if k < 1 or min(len(real), len(generated)) <= k:
        raise ValueError(
            f"k={k}: accepted are whole numbers from 1 to less than the {len(real)} real and the "
            f"{len(generated)} generated images"
        )
    around_real, around_generated = (_radii(each, k) for each in (real, generated))
    inside = np.zeros(len(generated), int)
    recalled, covered = [], []
    for rows, squared in _blocks(real, generated):
        balls = squared <= around_real[rows, None]
        inside += balls.sum(axis=0)
        covered.append(balls.any(axis=1))
        recalled.append((squared <= around_generated).any(axis=1))
    return Manifolds(
        precision=float((inside > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(inside.mean() / k),
        coverage=float(np.concatenate(covered).mean()),
    )


def copied(train: np.ndarray, samples: np.ndarray) -> float:
    """Share of samples that are nearer to a training image than any other training image is.

    That is, the distance of a sample to the nearest training image is smaller than the distance of
    this image to its own nearest other one: 1 - authenticity of Alaa et al. (2022). New images of
    the same kind have a share, too, that of mutual nearest neighbours: two thirds on a line, and
    about one half in a space of many dimensions. So compare with the share of test images. train,
    samples: features [N, d] and [M, d]. Raises `ValueError` for fewer than 2 training images, or
    for no sample.
    """
    if len(train) < 2 or len(samples) < 1:
        raise ValueError(
            f"{len(train)} training images and {len(samples)} samples: at least 2 and 1 are needed"
        )
    apart, nearer = _radii(train, 1), 0
    for _, squared in _blocks(samples, train):
        nearest = squared.argmin(axis=1)
        nearer += int((squared[np.arange(len(squared)), nearest] < apart[nearest]).sum())
    return nearer / len(samples)


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each feature to its k-th neighbour, [N]."""
    radii = []
    for rows, squared in _blocks(features, features):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        radii.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)


def _blocks(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of `first`, and their squared distances to all of `second`."""
    first, second = (np.asarray(each, np.float64) for each in (first, second))
    # Around a common centre, so that less is lost where close features are subtracted.
    centre = second.mean(axis=0)
    first, second = first - centre, second - centre
    lengths = np.einsum("nd,nd->n", second, second)
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK]
        sums = np.einsum("nd,nd->n", block, block)[:, None] + lengths
        squared = sums - 2 * (block @ second.T)
        # What is left of equal features is rounding: they are equal on every machine.
        squared[squared < 1e-13 * sums] = 0
        yield slice(start, start + len(block)), squared
