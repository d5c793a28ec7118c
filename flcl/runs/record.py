"""Assembles `results.json`, the results of a run; it is rewritten completely after every task.

It contains nothing that differs between equal runs, so an interrupted run ends with the same bytes
as an uninterrupted run. Seconds and file sizes are in `timing.json`.
"""

import dataclasses
import functools
from importlib import metadata
from typing import Protocol

from flcl import __version__, methods, settings
from flcl.data.sequence.stream import Task
from flcl.evaluate.pictures import Pictures
from flcl.metrics import matrix as accuracy_matrix
from flcl.runs.results import NAME, Results, from_json, to_json
from flcl.runs.setup import Setup

# Another version of one of these packages may round differently.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "diffrax", "grain")


# What the settings, the data and the rows decide. A later version may add other entries.
_IDENTITY = ("method", "scenario", "seed", "class_order", "class_names", "tasks", "task_names")
_IDENTITY += ("steps_per_task", "stream_fingerprint", "test_counts", "matrix")


# Real images per class to which the memory of a classifier is compared.
_COMPARED = 100


class Evaluation(Protocol):
    """Tests a model after every task; there is one for generators and one for classifiers.

    Attributes:
      pictures: the images of the newest evaluation.
    """

    pictures: Pictures

    def load(self, stored: dict) -> None:
        """Loads the `results.json` of an earlier process."""

    def evaluate(self, memory, task: Task) -> dict:
        """The row of `task` as JSON values: `accuracy` of each learned group, and more."""

    def updated(self, memory, task: Task, row: dict) -> dict:
        """The row of an earlier task if it rests on what later tasks have added; or as it is.

        memory: as it was after `task`.
        """

    def mend(self, memory, task: Task) -> str:
        """Makes files again that later tasks need, if they are damaged or have been replaced.

        memory: as it was after `task`. Returns a line that says what was made, or an empty string.
        """

    def draw(self, memory, task: Task) -> Pictures:
        """The pictures of the evaluation after `task`, from the memory after it."""

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """Entries of `results.json` that only this kind of run has."""


@dataclasses.dataclass
class Record:
    """The rows and diagnoses so far, in task order."""

    setup: Setup
    evaluation: Evaluation
    rows: list[dict] = dataclasses.field(default_factory=list)
    diagnosis: list[dict] = dataclasses.field(default_factory=list)

    def load(self, stored: dict | None, tasks: int) -> None:
        """Loads the rows of the first `tasks` tasks from the `results.json` of an earlier process.

        A row after the stored tasks describes parameters that no longer exist. Raises `ValueError`
        for results that are not those of this run; then nothing is loaded.
        """
        if stored is None or not tasks:
            return
        self.rows = stored.get("rows", [])[:tasks]
        self.diagnosis = stored.get("diagnosis", [])[: len(self.rows)]
        if self.rows and (differing := self._differing(stored)):
            self.rows, self.diagnosis = [], []
            raise ValueError(f"{NAME} does not have the results of this run ({differing} differs)")
        if self.rows:
            self.evaluation.load(stored)

    def _differing(self, stored: dict) -> str:
        """The first entry that does not fit this run or the loaded rows; empty if all fit."""
        if len(self.diagnosis) != len(self.rows):
            return "diagnosis"
        try:
            made = to_json(self.results())
        except (ValueError, LookupError):  # rows with too many values, or of unknown classes
            return "rows"
        stream = self.setup.data.stream
        for task, row in enumerate(self.rows, start=1):
            if len(row["accuracy"]) != (len(stream.groups) if stream.joint else task):
                return "rows"
        made["matrix"] = made["matrix"] + stored["matrix"][len(self.rows) :]
        made = _as_long_as(stored, made)
        return next((name for name in _IDENTITY if stored.get(name, made[name]) != made[name]), "")

    def update(self, memory, task: Task) -> None:
        """Brings the row of an earlier task up to date; memory: as it was after it."""
        place = task.index - 1
        self.rows[place] = self.evaluation.updated(memory, task, self.rows[place])

    def add(self, row: dict, diagnosis: dict) -> None:
        """Appends the row and the diagnosis of one task."""
        self.rows.append(row)
        self.diagnosis.append(diagnosis)

    @functools.cached_property
    def _fixed(self) -> dict:
        """The entries that are the same after every task: counting them costs seconds."""
        setup, stream = self.setup, self.setup.data.stream
        return {
            "class_names": setup.data.class_names(),
            "task_names": setup.data.group_names(),
            "steps_per_task": [setup.steps(task) for task in stream.tasks],
            "test_counts": setup.data.test_counts(),
            "parameters": methods.shared(setup.run, stream.exact()).describe(),
        }

    def results(self) -> Results:
        """The content of `results.json`; raises `ValueError` for a value outside its schema."""
        setup, run, stream = self.setup, self.setup.run, self.setup.data.stream
        groups = stream.groups
        matrix = [accuracy_matrix.filled(row["accuracy"], len(groups)) for row in self.rows]
        values = {
            **self._fixed,
            "parameters": self._parameters(),
            "name": run.name,
            "method": run.method,
            "scenario": run.stream.scenario + (" (joint)" if run.stream.joint else ""),
            "seed": run.seed,
            "class_order": list(stream.class_order),
            "tasks": [list(group.labels) for group in groups],
            "stream_fingerprint": stream.fingerprint,
            "matrix": matrix,
            "summary": accuracy_matrix.summary(matrix, self._fixed["test_counts"]),
            **self.evaluation.sections(self.rows, self.diagnosis),
            **_weights(setup),
            **_old_classes(setup, self._fixed["parameters"]),
            "diagnosis": self.diagnosis,
            "rows": self.rows,
            "versions": {
                "flcl": __version__,
                **{name: metadata.version(name) for name in _PACKAGES},
            },
            "complete": len(self.rows) == len(stream.tasks),
        }
        # Also checked when it is written: a wrong value must not reach a file that other programs
        # trust.
        return from_json(values)

    def _parameters(self) -> dict:
        """Sizes by name; what a finished task stored replaces what it may store at most."""
        sizes = self._fixed["parameters"]
        if not any("bytes" in each for each in self.diagnosis):
            return sizes
        stored = list(sizes["bytes_per_task"])
        for place, each in enumerate(self.diagnosis):
            stored[place] = each.get("bytes", stored[place])
        return {**sizes, "bytes_per_task": stored}


def _as_long_as(stored: dict, made: dict) -> dict:
    """`made` without what was learned since `stored` was written, in a run that went on."""
    groups, classes = len(stored.get("tasks", ())), len(stored.get("class_order", ()))
    if groups >= len(made["tasks"]):
        return made
    lengths = {"class_order": classes, "class_names": classes}
    lengths |= dict.fromkeys(("tasks", "task_names", "steps_per_task", "test_counts"), groups)
    shorter = {name: made[name][:length] for name, length in lengths.items()}
    matrix = [row[:groups] for row in made["matrix"]]
    fingerprint = stored.get("stream_fingerprint", "")
    return {**made, **shorter, "matrix": matrix, "stream_fingerprint": fingerprint}


def _old_classes(setup: Setup, parameters: dict) -> dict:
    """What a classifier has in the place of old images, in bytes."""
    if not isinstance(setup.run, settings.ClassifierRun):
        return {}
    data = setup.run.data
    image = data.image_size**2 * data.channels
    costs = {
        "statistics": parameters["statistics_bytes"],
        "real_images": {"once": 0, "per_class": _COMPARED * image},
        "real_images_per_class": _COMPARED,
    }
    return {"old_classes": costs | dict(setup.substitutes)}


def _weights(setup: Setup) -> dict:
    """The pre-trained weights of a classifier."""
    if not isinstance(setup.run, settings.ClassifierRun):
        return {}
    model = setup.run.model
    weights = {"source": model.weights, "sha256": model.sha256, "normalize": model.normalize}
    return {"weights": weights | dict(setup.origin)}
