"""Evaluation of classifiers: tests all heads on every group and measures the drift of features."""

from pathlib import Path

import numpy as np

from flcl import files
from flcl.data.stream import Task
from flcl.data.tasks import TaskData
from flcl.evaluate.features import Inference, Progress
from flcl.evaluate.pictures import AnswerCount, Pictures
from flcl.methods.base import Classifier
from flcl.metrics import classification
from flcl.metrics import matrix as accuracy_matrix

DRIFT_IMAGES = 256
"""Number of test images per group whose features are compared from task to task."""


class ClassifierEvaluation:
    """Tests the classifier of a run.

    inference: the compiled programs of the method.
    folder: where the features of each group are stored at the end of its task, to measure drift;
      None = the drift is not measured.

    Attributes:
      pictures: the answers of the method's head after the newest task.
    """

    def __init__(
        self,
        method: Classifier,
        data: TaskData,
        inference: Inference,
        progress: Progress,
        folder: Path | None = None,
    ):
        self.method, self.data = method, data
        self.pictures = Pictures()
        self._progress, self._folder = progress, folder
        self._inference = inference

    def load(self, stored: dict) -> None:
        """Loads nothing: an earlier process stored only the rows."""

    def evaluate(self, memory, task: Task) -> dict:
        """The row after `task`.

        `accuracy`: accuracy of the method's head for each group learned so far; the name of each
        head: the same for that head; `drift`: how far the features of each group moved since the
        end of its task.
        """
        heads = list(self.method.heads)
        count = AnswerCount(self.data.stream.capacity)
        row: dict = {**{head: [] for head in heads}, "drift": {"relative": [], "cosine": []}}
        for group in self._learned(task):
            images = self.data.test(group)
            advance = self._progress(f"testing group {group.index}", len(images))
            features = self._inference.features(memory, images, advance)
            scores = self._inference.scores(memory, features)
            for head in heads:
                row[head].append(classification.top_k_accuracy(scores[head], images.labels, 1))
            # The pictures show the answers of the method's own head; the other heads are only
            # scored.
            count.add(images, scores[self.method.head].argmax(axis=1))
            # The reference is taken once, at the end of the task of the group. Joint training has
            # only one such moment.
            newest = group.index == task.index or self.data.stream.joint
            for name, value in self._drift(group, _followed(features), newest).items():
                row["drift"][name].append(value)
        self.pictures = Pictures(answers=count.answers())
        return {"accuracy": row[self.method.head], **row}

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """The entries of `results.json` for a classifier, except the matrix of its head."""
        groups, counts = self.data.stream.groups, self.data.test_counts()
        class_mean = None
        # A second table is needed only if the class means are not already the head of the method.
        if self.method.head == "linear" and rows:
            matrix = [accuracy_matrix.filled(row["class_mean"], len(groups)) for row in rows]
            class_mean = {"matrix": matrix, "summary": accuracy_matrix.summary(matrix, counts)}
        return {
            "kind": "classifier",
            "head": self.method.head,
            "class_mean": class_mean,
            "drift": {
                name: [accuracy_matrix.filled(row["drift"][name], len(groups)) for row in rows]
                for name in ("relative", "cosine")
            },
            "rank_selection": [d["rank_selection"] for d in diagnosis if "rank_selection" in d],
        }

    def _learned(self, task: Task) -> tuple[Task, ...]:
        stream = self.data.stream
        # Joint training learns all groups in its one task.
        return stream.groups if stream.joint else stream.groups[: task.index]

    def _drift(self, group: Task, features: np.ndarray, newest: bool) -> dict[str, float | None]:
        if self._folder is None:
            return {"relative": None, "cosine": None}
        path = self._folder / f"group_{group.index:02d}.npz"
        if newest:
            files.write(path, lambda file: np.savez(file, features=features))
            return {"relative": 0.0, "cosine": 0.0}
        if not path.exists():  # a user removed it; the accuracies do not need it
            return {"relative": None, "cosine": None}
        with np.load(path) as kept:
            return classification.drift(kept["features"], features)


def _followed(features: np.ndarray) -> np.ndarray:
    """Features of at most `DRIFT_IMAGES` images, evenly spaced because a group is class-sorted."""
    rows = np.linspace(0, len(features) - 1, min(len(features), DRIFT_IMAGES))
    return features[rows.astype(int)]
