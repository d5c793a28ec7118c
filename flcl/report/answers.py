"""A classifier's answers to its test images, kept in the workdir so that any process can draw them.

They are no part of `results.json`: a confusion matrix of many classes would be most of that file.
"""

import dataclasses
from pathlib import Path

import numpy as np

from flcl import files

PLACE = Path("evaluations") / "answers.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class KeptAnswers:
    """Answers of a classifier's own head after a task.

    Attributes:
      task: its number.
      confusion: int [K, K] images of each true label (rows) that got each answer.
      images: uint8 [M, H, W, C] of the most frequent mistakes, one of each.
      labels, answers: the true and the given label of those, [M].
    """

    task: int
    confusion: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    answers: np.ndarray


def keep(workdir: Path, kept: KeptAnswers) -> Path:
    """Writes `evaluations/answers.npz`, which holds the newest task only; returns its path."""
    arrays = {field.name: getattr(kept, field.name) for field in dataclasses.fields(kept)}
    return files.write(workdir / PLACE, lambda file: np.savez_compressed(file, **arrays))


def read(workdir: Path) -> KeptAnswers | None:
    """What `keep` wrote; None for a generator and for a run of an older version."""
    if not (workdir / PLACE).exists():
        return None
    with np.load(workdir / PLACE) as arrays:
        values = {field.name: arrays[field.name] for field in dataclasses.fields(KeptAnswers)}
    return KeptAnswers(**values | {"task": int(values["task"])})
