"""Fewer images per class: the same ones in every run, chosen before anything is decoded."""

import numpy as np

from flcl.data import base


def per_class(split: base.Split, most: int, part: str) -> base.Split:
    """At most `most` images of each class and domain of `split`; 0 = all.

    They are the first of a permutation of the class's images that depends on `part` ("train" or
    "test"), class and domain only: not on the run's seed, and with a larger `most` the same ones
    and more. Their order stays. A class with fewer images keeps all.
    """
    if most == 0:
        return split
    # Cells of one class and domain, each with its rows in ascending order.
    cells = np.stack([split.labels, split.domains])
    order = np.lexsort(cells[::-1])
    starts = np.flatnonzero((np.diff(cells[:, order]) != 0).any(0)) + 1
    kept = [_chosen(split, rows, most, part) for rows in np.split(order, starts)]
    rows = np.sort(np.concatenate(kept))
    images = split.images[rows] if isinstance(split.images, np.ndarray) else split.images.take(rows)
    return base.Split(images, split.labels[rows], split.domains[rows])


def _chosen(split: base.Split, rows: np.ndarray, most: int, part: str) -> np.ndarray:
    if len(rows) <= most:
        return rows
    # This generator is frozen by NumPy, so a subset never changes with a version.
    seed = [int(part == "test"), int(split.labels[rows[0]]), int(split.domains[rows[0]])]
    return rows[np.random.RandomState(seed).permutation(len(rows))[:most]]
