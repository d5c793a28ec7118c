"""Assembles `results.json`, the results of a run; it is rewritten completely after every task.

It contains nothing that differs between equal runs, so an interrupted run ends with the same bytes
as an uninterrupted run. Seconds and file sizes are in `timing.json`.
"""

import dataclasses
import functools
from importlib import metadata
from typing import Protocol

from flcl import __version__, settings
from flcl.data.stream import Task
from flcl.evaluate.pictures import Pictures
from flcl.metrics import matrix as accuracy_matrix
from flcl.runs.results import Results, from_json
from flcl.runs.setup import Setup

# Another version of one of these packages may round differently.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "diffrax", "grain")


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
        """Loads the rows of the first `tasks` tasks from an earlier process.

        A row after the stored tasks describes parameters that no longer exist.
        """
        if stored is not None and tasks:
            from_json(stored)  # an error names the place of an entry that somebody changed
            self.rows = stored["rows"][:tasks]
            self.diagnosis = stored["diagnosis"][:tasks]
            self.evaluation.load(stored)

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
            "parameters": setup.method.describe(),
        }

    def results(self) -> Results:
        """The content of `results.json`; raises `ValueError` for a value outside its schema."""
        setup, run, stream = self.setup, self.setup.run, self.setup.data.stream
        groups = stream.groups
        matrix = [accuracy_matrix.filled(row["accuracy"], len(groups)) for row in self.rows]
        values = {
            **self._fixed,
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


def _weights(setup: Setup) -> dict:
    """The pre-trained weights of a classifier."""
    if not isinstance(setup.run, settings.ClassifierRun):
        return {}
    model = setup.run.model
    weights = {"source": model.weights, "sha256": model.sha256, "normalize": model.normalize}
    return {"weights": weights | dict(setup.origin)}
