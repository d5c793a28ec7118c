"""The answers of a classifier to its test images, stored in the workdir for pictures.

They are not in `results.json`, because a large confusion matrix would be most of that file.
"""

import dataclasses
from pathlib import Path

import numpy as np

from flcl import files

PLACE = Path("evaluations") / "answers.npz"


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
    return files.write(workdir / PLACE, lambda file: np.savez_compressed(file, **arrays))


def read(workdir: Path) -> KeptAnswers | None:
    """Reads the file of `keep`; None for a generator and for a run of an older version."""
    if not (workdir / PLACE).exists():
        return None
    with np.load(workdir / PLACE) as arrays:
        values = {field.name: arrays[field.name] for field in dataclasses.fields(KeptAnswers)}
    return KeptAnswers(**values | {"task": int(values["task"])})
