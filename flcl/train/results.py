"""`results.json`: everything a run found, rewritten whole after every task.

It holds nothing that varies between equal runs, so an interrupted run ends with the same bytes as
an uninterrupted one; seconds and sizes of files are in `timing.json`.
"""

import dataclasses
from importlib import metadata
from pathlib import Path

from flcl import __version__
from flcl.evaluate import matrix as accuracy_matrix
from flcl.train.evaluation import Evaluator, Row
from flcl.train.setup import Setup
from flcl.train.workdir import read_json

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "diffrax", "grain")


@dataclasses.dataclass
class Results:
    """Rows and figures found so far, in task order."""

    setup: Setup
    rows: list[Row] = dataclasses.field(default_factory=list)
    diagnosis: list[dict] = dataclasses.field(default_factory=list)
    ceiling: list[float] | None = None

    def load(self, workdir: Path, tasks: int) -> None:
        """Takes over the rows of the first `tasks` tasks from an earlier process.

        A row beyond the stored tasks describes parameters that no longer exist.
        """
        stored = read_json(workdir / "results.json")
        if stored is None:
            return
        found = list(zip(stored["rows"], stored["diagnosis"], strict=True))
        for row, diagnosis in found[:tasks]:
            by_class = {int(k): v for k, v in row.pop("fidelity_per_class").items()}
            self.rows.append(Row(**row, fidelity_per_class=by_class))
            self.diagnosis.append(diagnosis)
        self.ceiling = stored["ceiling"]

    def add(self, row: Row, diagnosis: dict) -> None:
        """Appends what one task gave."""
        self.rows.append(row)
        self.diagnosis.append(diagnosis)

    def as_dict(self, evaluator: Evaluator) -> dict:
        """The content of `results.json`."""
        setup, run = self.setup, self.setup.run
        names = setup.class_names()
        groups = setup.stream.groups
        counts = [
            sum(len(v) for v in setup.stream.indices(setup.source.test, g.labels).values())
            for g in groups
        ]
        labels = [label for group in groups for label in group.labels]
        width = len(groups)
        matrix = [row.accuracy + [None] * (width - len(row.accuracy)) for row in self.rows]
        last = self.rows[-1] if self.rows else None
        importance = next((d["importance"] for d in self.diagnosis if "importance" in d), None)
        return {
            "name": run.name,
            "method": run.method,
            "scenario": run.stream.scenario + (" (joint)" if run.stream.joint else ""),
            "seed": run.seed,
            "class_order": list(setup.stream.class_order),
            "class_names": names,
            "tasks": [list(group.labels) for group in groups],
            "stream_fingerprint": setup.stream.fingerprint,
            "matrix": matrix,
            "test_counts": counts,
            "summary": accuracy_matrix.summary(matrix, counts) if matrix else {},
            "ceiling": self.ceiling,
            "fidelity": {
                "matrix": [row.fidelity_per_task for row in self.rows],
                "per_task": last.fidelity_per_task if last else [],
                "per_class": {
                    names[label]: accuracy
                    for label, accuracy in (last.fidelity_per_class if last else {}).items()
                },
            },
            "sampling": {
                **dataclasses.asdict(run.sample),
                "function_evaluations": last.function_evaluations if last else None,
                "images_per_class": [evaluator.generated_count(label) for label in labels],
                "oversample": run.judge.oversample,
                "judge_sees_of_newest_task": run.judge.current_task,
            },
            "parameters": setup.method.describe(),
            "importance": importance,
            "diagnosis": self.diagnosis,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "versions": {
                "flcl": __version__,
                **{name: metadata.version(name) for name in _PACKAGES},
            },
            "complete": len(self.rows) == len(setup.stream.tasks),
        }
