"""Evaluation of classifiers: tests all heads on every group and measures the drift of features."""

from collections.abc import Callable, Iterator

import numpy as np

from flcl.data.selection import Selection, joined
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts
from flcl.evaluate.features import Inference, Progress
from flcl.evaluate.pictures import AnswerCount, Pictures
from flcl.evaluate.references import References
from flcl.methods.base import Classifier, Labelled
from flcl.metrics import classification
from flcl.metrics import matrix as accuracy_matrix

DRIFT_IMAGES = 256
"""Number of test images per group whose features are compared from task to task."""


class ClassifierEvaluation:
    """Tests the classifier of a run.

    method: that of the newest task. inference: (task) -> the compiled programs of the method after
      it.
    references: the features of each group at the end of its task, to measure drift; None = the
      drift is not measured.

    Attributes:
      pictures: the answers of the method's head after the newest task.
    """

    def __init__(
        self,
        method: Classifier,
        data: TaskData,
        inference: Callable[[Task], Inference],
        progress: Progress,
        references: References | None = None,
    ):
        self.method, self.data = method, data
        self.pictures = Pictures()
        self._progress, self._references = progress, references
        self._inference_of = inference

    def load(self, stored: dict) -> None:
        """Loads nothing: an earlier process stored only the rows."""

    def evaluate(self, memory, task: Task) -> dict:
        """The row after `task`.

        `accuracy`: accuracy of the method's head for each group learned so far; the name of each
        head: the same for that head; `drift`: how far the features of each group moved since the
        end of its task; `statistics`, if heads are diagnosed: see `results.StatisticsRow`.
        """
        heads, inference = list(self.method.heads), self._inference_of(task)
        count = AnswerCount(len(self.data.stream.class_order))
        row: dict = {**{head: [] for head in heads}, "drift": {"relative": [], "cosine": []}}
        others = self._other_statistics(memory, task)
        diagnosed = {kind: {head: [] for head in self.method.diagnosed} for kind in others}
        for group, images, features, scores in self._tested(memory, task):
            if not len(images):
                _append_none(row, diagnosed, heads)
                continue
            for kind, solved in others.items():
                answers = inference.scores(solved, features)
                for head in self.method.diagnosed:
                    right = classification.top_k_accuracy(answers[head], images.labels, 1)
                    diagnosed[kind][head].append(right)
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
        return {
            "accuracy": row[self.method.head],
            **row,
            **({"statistics": diagnosed} if diagnosed else {}),
        }

    def mend(self, memory, task: Task) -> str:
        """Makes the reference features of a task again if their file is damaged or was replaced.

        memory: as it was after `task`. Returns a line about the file, or an empty string.
        """
        state = self._references and self._references.state(task.index)
        # Every process computes the features, or none does.
        state, line = hosts.from_main(state)
        if state == "good":
            return ""
        if not self.data.tested(task):
            return ""
        inference = self._inference_of(task)
        features = _followed(self._features(inference, memory, self.data.test(task), task))
        if self._references is None:
            return line
        if state == "unknown":
            if _nearly_equal(self._references.read(task.index), features):
                self._references.trust(task.index)
                return ""
            line = f"{self._references.path(task.index)} has features of another run"
        self._references.keep(task.index, features)
        return f"{line}; it is made again"

    def updated(self, memory, task: Task, row: dict) -> dict:
        """The row of `task`, unchanged: it rests on nothing that a later task changes."""
        del memory, task
        return row

    def draw(self, memory, task: Task) -> Pictures:
        """The answers after `task`, from the memory after it."""
        count = AnswerCount(len(self.data.stream.class_order))
        for _, images, _, scores in self._tested(memory, task):
            if len(images):
                count.add(images, scores[self.method.head].argmax(axis=1))
        return Pictures(answers=count.answers())

    def _tested(self, memory, task: Task) -> Iterator[tuple]:
        """For each group learned so far: the group, its test images, their features and scores.

        A group that cannot be tested has none: see `TaskData.tested`.
        """
        inference = self._inference_of(task)
        # Once: it may take a large system of equations.
        solved = inference.method.solved(memory)
        for group in self._learned(task):
            if not self.data.tested(group):
                yield group, (), None, {}
                continue
            images = self.data.test(group)
            features = self._features(inference, memory, images, group)
            yield group, images, features, inference.scores(solved, features)

    def _other_statistics(self, memory, task: Task) -> dict:
        """What the scores read with statistics that never followed the features, and with true
        ones, from all training images so far; empty if no head is diagnosed, images are not here
        any more, or a class was removed."""
        inference = self._inference_of(task)
        method, tasks = inference.method, self.data.stream.tasks[: task.index]
        if not method.diagnosed or not all(map(self.data.tested, tasks)):
            return {}
        counted = []
        for each in tasks:
            images = joined(self.data.train(each))
            advance = self._progress(f"true statistics of task {each.index}", len(images))
            features = inference.features(memory, images, advance)
            counted.append((each, Labelled(features, images.labels)))
        memories = {
            "stale": method.uncorrected(memory),
            "true": method.recounted(memory, counted),
        }
        return {kind: method.solved(other) for kind, other in memories.items()}

    def _features(self, inference, memory, images: Selection, group: Task) -> np.ndarray:
        advance = self._progress(f"testing group {group.index}", len(images))
        return inference.features(memory, images, advance)

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """The entries of `results.json` for a classifier, except the matrix of its head."""
        groups, counts = self.data.stream.groups, self.data.test_counts()
        heads = {}
        for head in self.method.heads:
            matrix = [accuracy_matrix.filled(row[head], len(groups)) for row in rows]
            heads[head] = {"matrix": matrix, "summary": accuracy_matrix.summary(matrix, counts)}
        return {
            "kind": "classifier",
            "head": self.method.head,
            "heads": heads,
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
        if self._references is None:
            return {"relative": None, "cosine": None}
        if newest:
            self._references.keep(group.index, features)
            return {"relative": 0.0, "cosine": 0.0}
        return classification.drift(self._references.read(group.index), features)


def _append_none(row: dict, diagnosed: dict, heads: list[str]) -> None:
    """The entries of a group that cannot be tested."""
    for head in heads:
        row[head].append(None)
    for accuracies in (each for kind in diagnosed.values() for each in kind.values()):
        accuracies.append(None)
    for values in row["drift"].values():
        values.append(None)


def _followed(features: np.ndarray) -> np.ndarray:
    """Features of at most `DRIFT_IMAGES` images, evenly spaced because a group is class-sorted."""
    rows = np.linspace(0, len(features) - 1, min(len(features), DRIFT_IMAGES))
    return features[rows.astype(int)]


def _nearly_equal(before: np.ndarray, features: np.ndarray) -> bool:
    """Whether these are features of one model: another machine rounds them otherwise."""
    if before.shape != features.shape:
        return False
    return bool(np.linalg.norm(before - features) <= 0.05 * np.linalg.norm(features))
