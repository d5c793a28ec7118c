"""Shows the progress of a run: bars and tables on screen; metrics, pictures and a page on disk."""

from collections.abc import Mapping
from pathlib import Path

import jax

from flcl import settings
from flcl.report import answers, kept, reading, tables
from flcl.report.console import Console
from flcl.report.numbers import quality
from flcl.report.progress import ProgressBar
from flcl.report.writers import EVALUATION, MetricWriter
from flcl.runs.results import GeneratorResults, Results
from flcl.storage.seals import Seals


class Reporter:
    """Reports to people; the outer loop calls it. Only the first process prints and writes.

    workdir: folder of the run, for `metrics.jsonl`, `tensorboard/`, `samples/`, `plots/` and
    `report.html`. run: settings; `runtime.progress` = False switches the bars off.
    """

    def __init__(self, workdir: Path, run: settings.Run, console: Console | None = None):
        self._workdir, self._run = Path(workdir), run
        self._console = console or Console()
        self._enabled = jax.process_index() == 0
        self._writer = MetricWriter(workdir, enabled=self._enabled)
        self._seals = Seals(workdir, writes=self._enabled)
        self._bar: ProgressBar | None = None
        self._task, self._phase = 0, ""
        self._drawn = False

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._enabled:
            self._console.print(text, highlight=False, soft_wrap=True)

    def progress(self, description: str, total: int) -> ProgressBar:
        """Starts a bar; call it with the number of finished items and perhaps a loss."""
        if self._bar is not None:
            self._bar.close()
        shown = self._enabled and self._run.runtime.progress
        self._bar = ProgressBar(description, total, enabled=shown, console=self._console)
        return self._bar

    def begin_task(self, task, phase: int, first_step: int) -> None:
        """Training of `task` starts or continues after `first_step` finished steps."""
        self._task, self._phase = task.index, f"phase{phase}"
        self._writer.rewind(task.index, first_step)

    def record(self, step: int, metrics: dict) -> None:
        """Stores mean metrics since the last record of the task, after `step` finished steps."""
        self._writer.write(task=self._task, step=step, phase=self._phase, **metrics)
        if self._bar is not None and "loss" in metrics:
            self._bar(step, metrics["loss"])

    def evaluated(self, task, results: Results, pictures) -> None:
        """Prints the results after `task` and writes the page again.

        pictures: `generated` and `real` images [n, H, W, C] of each learned label, and the
        `answers` of a classifier (confusion, images, labels, answers) or None.
        """
        if not self._enabled:
            return
        from flcl.report import page  # imported late, because it loads matplotlib

        self._writer.rewind(task.index, None)
        numbers = _numbers(results)
        others = {
            name: head.summary.last_accuracy for name, head in reading.other_heads(results).items()
        }
        steps = results.steps_per_task[task.index - 1]
        curves = numbers | {f"{name}_accuracy": value for name, value in others.items()}
        self._writer.write(task=task.index, step=steps, phase=EVALUATION, **curves)
        shown = ", ".join(filter(None, (_listed(numbers), quality.line(results))))
        if others:
            shown += f"; other heads: {_listed(others)}"
        if pictures.generated:
            path = self._workdir / kept.samples_name(task.index, ".png")
            shown += f"; samples: {path}"
        self.mend(task, results, pictures)
        if results.complete:  # before the caller stores that the run is complete
            self._draw(results)
        page.write_page(self._workdir, results)
        self.say(f"task {task.index} of {len(results.tasks)}, in %: {shown}")

    def lacks(self, task, results: Results) -> bool:
        """Whether pictures of an evaluated task are missing, damaged or not those of the run."""
        if not self._enabled:
            return False
        folder, classes = self._workdir, len(results.class_names)
        readers = {}
        if isinstance(results, GeneratorResults):
            arrays, picture = (kept.samples_name(task.index, kind) for kind in (".npz", ".png"))
            readers[arrays] = lambda: kept.read_samples(folder, task.index, classes)
            readers[picture] = lambda: kept.read_picture(folder, picture)
        elif task.index == len(results.matrix):  # only the answers of the newest task are stored
            readers[answers.PLACE] = lambda: answers.read(folder, classes)
        return not all(kept.is_good(folder, name, read) for name, read in readers.items())

    def mend(self, task, results: Results, pictures) -> None:
        """Stores the pictures of an evaluated task."""
        if not self._enabled:
            return
        if pictures.generated:
            from flcl.report.pictures import of_tasks

            of_tasks.keep(self._workdir, self._seals, task.index, pictures, results)
        if pictures.answers is not None:
            given = pictures.answers
            arrays = (given.confusion, given.images, given.labels, given.answers)
            answers.keep(self._workdir, answers.KeptAnswers(task.index, *arrays))

    def finished(self, results: Results) -> None:
        """The run is complete: prints the tables and writes the page."""
        self._writer.close()
        if not self._enabled:
            return
        from flcl.report import page

        if not self._drawn:
            self._draw(results)
        path = page.write_page(self._workdir, results)
        tables.print_results(results, self._console)
        self.say(f"report: {path}")

    def _draw(self, results: Results) -> None:
        """Draws the pictures of several tasks."""
        from flcl.report import page
        from flcl.report.pictures import of_tasks

        if isinstance(results, GeneratorResults):
            unplanned = [int(number) for number, *_ in page.later_tasks(self._workdir)]
            of_tasks.draw(self._workdir, results, unplanned)
        self._drawn = True


def _numbers(results: Results) -> dict[str, float]:
    """The numbers of the method that are shown as curves over tasks."""
    numbers = {
        "accuracy": results.summary.last_accuracy,
        "forgetting": results.summary.forgetting,
        "fidelity": reading.overall(results, "fidelity"),
        "recall": reading.overall(results, "recall"),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _listed(numbers: Mapping[str, float]) -> str:
    """Names and percentages: "accuracy 73.3, forgetting 10.0"."""
    return ", ".join(f"{reading.head_name(k)} {reading.percent(v)}" for k, v in numbers.items())
