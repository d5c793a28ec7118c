"""Some images of a split, for training, testing, the judge or features."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from flcl.data import images as images_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The images `indices` of a split; indexing a selection reads (and decodes) its images.

    Attributes:
      images: all images of the split, uint8 [*, H, W, C]; an array, or a decoder indexed like one;
        or what is kept in the place of images, one entry for each.
      indices: the positions of the selected images, [N].
      labels: the labels of the selected images, int32 [N]; None = the key of a mapping that
        contains the selection is the label of all its images.
    """

    images: np.ndarray | images_lib.LazyImages
    indices: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows) -> np.ndarray:
        """Images uint8 [len(rows), H, W, C] at the positions `rows` of this selection.

        Or what is kept in their place, in its own shape and type.
        """
        # Images are read only here, so a selection of files costs nothing until it is used.
        return np.asarray(self.images[self.indices[rows]])


def everything(images, labels=None) -> Selection:
    """All `images` [N, H, W, C], with labels [N] or without labels.

    Raises `ValueError` if the numbers of labels and images differ.
    """
    labels = None if labels is None else np.asarray(labels, np.int32)
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(f"{len(images)} images and {labels.size} labels: one for each is needed")
    return Selection(images, np.arange(len(images)), labels)


def joined(by_label: Mapping[int, Selection]) -> Selection:
    """Joins selections into one, label after label; they may be of several splits."""
    parts = list(by_label.values())
    labels = np.repeat(np.array(list(by_label), np.int32), [len(each) for each in parts])
    first = parts[0].images
    if all(each.images is first for each in parts):
        return Selection(first, np.concatenate([each.indices for each in parts]), labels)
    return Selection(_Several(parts), np.arange(len(labels)), labels)


class _Several:
    """The images of several selections, one after the other; indexing reads them."""

    def __init__(self, parts: list[Selection]):
        self._parts = parts
        self._ends = np.cumsum([len(each) for each in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows) -> np.ndarray:
        rows = np.asarray(rows)
        chosen = np.searchsorted(self._ends, rows, side="right")
        inside = rows - np.concatenate([[0], self._ends])[chosen]
        # Selection after selection, and then back into the order of `rows`.
        read = [self._parts[number][inside[chosen == number]] for number in np.unique(chosen)]
        by_selection = np.concatenate(read)
        images = np.empty_like(by_selection)
        images[np.argsort(chosen, kind="stable")] = by_selection
        return images
