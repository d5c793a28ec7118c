"""Some images of a split, for training, testing, the judge or features."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from flcl.data import images as images_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The images `indices` of a split; indexing a selection reads (and decodes) its images.

    Attributes:
      images: all images of the split, uint8 [*, H, W, C]; an array, or a decoder indexed like one.
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
        """Images uint8 [len(rows), H, W, C] at the positions `rows` of this selection."""
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
    """Joins selections of the same split into one, label after label."""
    indices = np.concatenate([part.indices for part in by_label.values()])
    labels = np.repeat(np.array(list(by_label), np.int32), [len(v) for v in by_label.values()])
    # All parts belong to one split, so they have the same array of images.
    return Selection(next(iter(by_label.values())).images, indices, labels)
