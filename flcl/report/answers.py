"""The answers of a classifier to its test images, stored in the workdir for pictures.

They are not in `results.json`, because a large confusion matrix would be most of that file.
"""

import dataclasses
from pathlib import Path

import numpy as np

from flcl.report.kept import read_sealed
from flcl.storage import npz
from flcl.storage.seals import Seals

PLACE = "evaluations/answers.npz"

_KINDS = {
    "task": npz.Kind("iu", 0),
    "confusion": npz.Kind("iu", 2),
    "images": npz.Kind("u", 4),
    "labels": npz.Kind("iu", 1),
    "answers": npz.Kind("iu", 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class KeptAnswers:
    """Answers of the method's head after a task.

    Attributes:
      task: the number of the task.
      confusion: int [K, K], number of images by true label (rows) and answer (columns).
      images: uint8 [M, H, W, C], one image for each of the most frequent mistakes.
      labels, answers: the true label and the answer for each of these images, [M].
    """

    task: int
    confusion: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    answers: np.ndarray


def keep(workdir: Path, kept: KeptAnswers) -> Path:
    """Writes `evaluations/answers.npz`, which stores only the newest task; returns its path."""
    arrays = {field.name: getattr(kept, field.name) for field in dataclasses.fields(kept)}
    return Seals(workdir).write(PLACE, npz.to_bytes(arrays))


def read(workdir: Path, classes: int) -> KeptAnswers | None:
    """Reads the file of `keep`; None for a generator and for a run of an older version.

    classes: the number of labels. Raises `ValueError` for a file that is damaged, is not the one
    that the run wrote, or does not fit the labels.
    """
    try:
        content, _ = read_sealed(workdir, PLACE)
    except FileNotFoundError:
        return None
    path = workdir / PLACE
    values = npz.from_bytes(content, path, _KINDS)
    images, labels, answers = (values[name] for name in ("images", "labels", "answers"))
    confusion = values["confusion"]
    fits = (
        confusion.shape[0] == confusion.shape[1] >= classes
        and len(images) == len(labels) == len(answers)
        and (not len(images) or images.shape[-1] in (1, 3))
        and all(((0 <= each) & (each < classes)).all() for each in (labels, answers))
        and confusion.min() >= 0
        and not confusion[classes:].any()
    )
    if not fits:
        raise ValueError(f"{path} is damaged (its arrays do not fit {classes} classes)")
    return KeptAnswers(**values | {"task": int(values["task"])})
