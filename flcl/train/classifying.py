"""Classifiers: after every task test both heads on every group, and measure how features moved."""

from pathlib import Path

import numpy as np

from flcl.data.stream import Task
from flcl.metrics import classification
from flcl.metrics import matrix as accuracy_matrix
from flcl.train.features import Inference, Labelled, labelled
from flcl.train.setup import Progress, Setup

HEADS = ("linear", "class_mean")

DRIFT_IMAGES = 256
"""Test images of a group whose features are followed from task to task."""


class ClassifierEvaluation:
    """Tests a run's classifier.

    folder: where the features of each group at the end of its own task are kept, to measure drift;
      None = the drift is not measured.
    """

    def __init__(self, setup: Setup, progress: Progress, folder: Path | None = None):
        self.setup = setup
        self.drawn: dict[int, np.ndarray] = {}  # a classifier draws no pictures
        self._progress = progress
        self._folder = folder
        self._inference = Inference(setup.method, setup.mesh)

    def load(self, stored: dict) -> None:
        """Takes over what an earlier process found: nothing beside the rows."""

    def calibrate(self, memory, task: Task):
        """Memory with the class statistics of the task's training images."""
        pools = self.setup.pools(task)
        images = next(iter(pools.values())).images
        part = labelled(images, {label: pool.indices for label, pool in pools.items()})
        features = self._features(memory, part, f"class means of task {task.index}")
        return self.setup.method.calibrate(memory, task, features, part.labels)

    def evaluate(self, memory, task: Task) -> dict:
        """The row after `task`.

        `accuracy`: of the method's own head per group learned so far; `linear`, `class_mean`: of
        both heads; `drift`: how far the features of each group moved since the end of its own task.
        """
        groups = self._learned(task)
        row: dict = {**{head: [] for head in HEADS}, "drift": {"relative": [], "cosine": []}}
        for group in groups:
            part = self._test_images(group)
            features = self._features(memory, part, f"testing group {group.index}")
            scores = self._inference.scores(memory, features)
            for head in HEADS:
                row[head].append(classification.top_k_accuracy(scores[head], part.labels, 1))
            own = group.index == task.index or self.setup.stream.joint
            # Spread over the group, which lists one class after the other.
            followed = np.linspace(0, len(features) - 1, min(len(features), DRIFT_IMAGES))
            moved = self._drift(group, features[followed.astype(int)], own)
            for name, value in moved.items():
                row["drift"][name].append(value)
        return {"accuracy": row[self.setup.method.head], **row}

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """What `results.json` says of a classifier beside the accuracy matrix of its own head."""
        groups = self.setup.stream.groups
        counts = self.setup.test_counts()
        head = self.setup.method.head
        other = None
        if head == "linear" and rows:
            matrix = [accuracy_matrix.filled(row["class_mean"], len(groups)) for row in rows]
            other = {"matrix": matrix, "summary": accuracy_matrix.summary(matrix, counts)}
        return {
            "kind": "classifier",
            "head": head,
            "class_mean": other,
            "drift": {
                name: [accuracy_matrix.filled(row["drift"][name], len(groups)) for row in rows]
                for name in ("relative", "cosine")
            },
            "rank_selection": [d["rank_selection"] for d in diagnosis if "rank_selection" in d],
            "weights": self.setup.method.weights,
        }

    def _learned(self, task: Task) -> tuple[Task, ...]:
        stream = self.setup.stream
        return stream.groups if stream.joint else stream.groups[: task.index]

    def _test_images(self, group: Task) -> Labelled:
        split = self.setup.source.test
        by_label = self.setup.stream.indices(split, group.labels, group.domains)
        return labelled(split.images, by_label)

    def _features(self, memory, part: Labelled, description: str) -> np.ndarray:
        advance = self._progress(description, len(part.indices))
        return self._inference.features(memory, part, advance)

    def _drift(self, group: Task, features: np.ndarray, own: bool) -> dict[str, float | None]:
        if self._folder is None:
            return {"relative": None, "cosine": None}
        path = self._folder / f"group_{group.index:02d}.npz"
        if own:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}")
            np.savez(temporary, features=features)
            temporary.replace(path)
            return {"relative": 0.0, "cosine": 0.0}
        if not path.exists():  # removed by hand: the accuracies do not need it
            return {"relative": None, "cosine": None}
        with np.load(path) as kept:
            return classification.drift(kept["features"], features)
