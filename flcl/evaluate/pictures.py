"""The images that an evaluation shows: generated, real and wrongly classified images."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from flcl.data.selection import Selection
from flcl.data.sequence.tasks import TaskData
from flcl.metrics import classification

GENERATED = 10
"""Number of samples of each class that are shown."""
REAL = 4
"""Number of real images of each class that are shown beside generated images."""
MISTAKES = 12
"""Number of wrong answers that are stored with their images."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """The answers of the method's head for all test images after a task.

    Attributes:
      confusion: int [K, K], number of images by true label (rows) and answer (columns).
      images: uint8 [M, H, W, C], one image for each of the most frequent mistakes.
      labels, answers: the true label and the answer for each of these images, [M].
    """

    confusion: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    answers: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Images uint8 [n, H, W, C] by label after a task, and the answers of a classifier.

    generated, real: empty for a classifier. answers: None for a generator.
    """

    generated: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    real: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    answers: Answers | None = None


class AnswerCount:
    """Counts answers group by group and stores the first image of every kind of mistake."""

    def __init__(self, capacity: int):
        self._confusion = np.zeros((capacity, capacity), int)
        self._first: dict[tuple[int, int], tuple[Selection, int]] = {}

    def add(self, images: Selection, answers: np.ndarray) -> None:
        """Counts the answers [N] to the images of one group."""
        self._confusion += classification.confusion(answers, images.labels, len(self._confusion))
        for row in np.flatnonzero(answers != images.labels):
            kind = (int(images.labels[row]), int(answers[row]))
            # The place and not the image: it is read only if this mistake is among the most
            # frequent ones.
            self._first.setdefault(kind, (images, int(row)))

    def answers(self) -> Answers | None:
        """The counts, with images of the most frequent mistakes; None if nothing was counted."""
        if not self._confusion.any():
            return None
        # Equal counts are sorted by label: a repeated evaluation shows the same images.
        kinds = sorted(self._first, key=lambda kind: (-self._confusion[kind], kind))[:MISTAKES]
        pixels = [images[np.array([row])] for images, row in map(self._first.get, kinds)]
        labels, answers = np.array(kinds, int).reshape(-1, 2).T
        shown = np.concatenate(pixels) if pixels else np.zeros((0, 1, 1, 1), np.uint8)
        return Answers(self._confusion, shown, labels, answers)


def real_images(data: TaskData, labels, count: int = REAL) -> dict[int, np.ndarray]:
    """The first test images of `labels`, at most `count` of each.

    A label without a test image is left out.
    """
    chosen: dict[int, list[np.ndarray]] = {}
    for group in data.stream.groups:
        shown = set(group.labels) & set(labels) if data.here(group) else set()
        images = data.test(group) if shown else None
        for label in shown:
            # If groups are domains, a class has images in several groups.
            taken = sum(map(len, chosen.get(label, ())))
            rows = np.flatnonzero(images.labels == label)[: count - taken]
            if len(rows):
                chosen.setdefault(label, []).append(images[rows])
    return {label: np.concatenate(parts) for label, parts in sorted(chosen.items())}
