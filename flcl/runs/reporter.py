"""What a run tells while it goes on; `report.reporter.Reporter` shows it to people."""

from collections.abc import Callable
from typing import Protocol

import jax

from flcl.data.sequence.stream import Task
from flcl.evaluate.pictures import Pictures
from flcl.runs.results import Results
from flcl.runs.setup import Setup


class Reporter(Protocol):
    """Receives the progress of a run."""

    def say(self, text: str) -> None:
        """Shows one line."""

    def progress(self, description: str, total: int) -> Callable[..., None]:
        """Starts a bar; call the result with the number of finished items and perhaps a loss."""

    def begin_task(self, task: Task, phase: int, first_step: int) -> None:
        """Training of `task` starts or continues at `first_step`."""

    def record(self, step: int, metrics: dict) -> None:
        """Stores the mean metrics since the last record of the task."""

    def evaluated(self, task: Task, results: Results, pictures: Pictures) -> None:
        """Shows the results after `task`, and the pictures of its evaluation."""

    def lacks(self, task: Task, results: Results) -> bool:
        """Whether stored pictures of an evaluated task are missing, damaged or replaced."""

    def mend(self, task: Task, results: Results, pictures: Pictures) -> None:
        """Stores the pictures of an evaluated task again."""

    def finished(self, results: Results) -> None:
        """The run is complete."""


def introduce(reporter: Reporter, setup: Setup, notes: list[str]) -> None:
    """Says what the run has: images, devices, weights, and files that were damaged."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    reporter.say(f"{setup.data.summary()}, {devices}")
    for note in filter(None, [setup.note, *notes]):
        reporter.say(note)
