"""Some images of a split: what is trained on, tested, judged or turned into features."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from flcl.data import images as images_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The images `indices` of a split; indexing one reads (and decodes) them.

    Attributes:
      images: of the whole split, uint8 [*, H, W, C]; an array, or a decoder indexed like one.
      indices: which of them, [N].
      labels: of those, int32 [N]; None where they all have the label under which a mapping holds
        the selection.
    """

    images: np.ndarray | images_lib.LazyImages
    indices: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows) -> np.ndarray:
        """uint8 [len(rows), H, W, C] of the positions `rows` in this selection."""
        return np.asarray(self.images[self.indices[rows]])


def everything(images, labels=None) -> Selection:
    """All of `images` [N, H, W, C], with their labels [N] or without any.

    Raises `ValueError` unless there are as many labels as images.
    """
    labels = None if labels is None else np.asarray(labels, np.int32)
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(f"{len(images)} images and {labels.size} labels: one for each is needed")
    return Selection(images, np.arange(len(images)), labels)


def joined(by_label: Mapping[int, Selection]) -> Selection:
    """One selection of a few that are of the same split, label after label."""
    indices = np.concatenate([part.indices for part in by_label.values()])
    labels = np.repeat(np.array(list(by_label), np.int32), [len(v) for v in by_label.values()])
    return Selection(next(iter(by_label.values())).images, indices, labels)
