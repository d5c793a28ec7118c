"""Classifiers: after every task test all heads on every group, and measure how features moved."""

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
"""Test images of a group whose features are followed from task to task."""


class ClassifierEvaluation:
    """Tests a run's classifier.

    inference: the compiled programs of the method.
    folder: where the features of each group at the end of its own task are kept, to measure drift;
      None = the drift is not measured.

    Attributes:
      pictures: the answers of the method's own head after the newest task.
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
        """Takes over what an earlier process found: nothing beside the rows."""

    def evaluate(self, memory, task: Task) -> dict:
        """The row after `task`.

        `accuracy`: of the method's own head per group learned so far; under the name of each head
        the same of that head; `drift`: how far the features of each group moved since the end of
        its own task.
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
            count.add(images, scores[self.method.head].argmax(axis=1))
            own = group.index == task.index or self.data.stream.joint
            for name, value in self._drift(group, _followed(features), own).items():
                row["drift"][name].append(value)
        self.pictures = Pictures(answers=count.answers())
        return {"accuracy": row[self.method.head], **row}

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """What `results.json` says of a classifier beside the accuracy matrix of its own head."""
        groups, counts = self.data.stream.groups, self.data.test_counts()
        other = None
        if self.method.head == "linear" and rows:
            matrix = [accuracy_matrix.filled(row["class_mean"], len(groups)) for row in rows]
            other = {"matrix": matrix, "summary": accuracy_matrix.summary(matrix, counts)}
        return {
            "kind": "classifier",
            "head": self.method.head,
            "class_mean": other,
            "drift": {
                name: [accuracy_matrix.filled(row["drift"][name], len(groups)) for row in rows]
                for name in ("relative", "cosine")
            },
            "rank_selection": [d["rank_selection"] for d in diagnosis if "rank_selection" in d],
        }

    def _learned(self, task: Task) -> tuple[Task, ...]:
        stream = self.data.stream
        return stream.groups if stream.joint else stream.groups[: task.index]

    def _drift(self, group: Task, features: np.ndarray, own: bool) -> dict[str, float | None]:
        if self._folder is None:
            return {"relative": None, "cosine": None}
        path = self._folder / f"group_{group.index:02d}.npz"
        if own:
            files.write(path, lambda file: np.savez(file, features=features))
            return {"relative": 0.0, "cosine": 0.0}
        if not path.exists():  # removed by hand: the accuracies do not need it
            return {"relative": None, "cosine": None}
        with np.load(path) as kept:
            return classification.drift(kept["features"], features)


def _followed(features: np.ndarray) -> np.ndarray:
    """Features of at most `DRIFT_IMAGES` images, spread over the group: it lists class by class."""
    rows = np.linspace(0, len(features) - 1, min(len(features), DRIFT_IMAGES))
    return features[rows.astype(int)]
