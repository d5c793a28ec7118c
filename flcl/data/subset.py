"""Subsets with fewer images per class: the same images in every run, chosen before decoding."""

import numpy as np

from flcl.data import base


def per_class(split: base.Split, most: int, part: str) -> base.Split:
    """At most `most` images of each class and domain of `split`; 0 = all.

    They are the first images of a permutation that depends only on `part` ("train" or "test"),
    class and domain, not on the seed of the run. A larger `most` adds images to the same subset.
    The order of the images does not change. A class with fewer images keeps all of them.
    """
    if most == 0:
        return split
    # A cell has one class and domain, and its rows in ascending order.
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
    # NumPy never changes this generator, so a subset is the same in every version.
    seed = [int(part == "test"), int(split.labels[rows[0]]), int(split.domains[rows[0]])]
    return rows[np.random.RandomState(seed).permutation(len(rows))[:most]]
