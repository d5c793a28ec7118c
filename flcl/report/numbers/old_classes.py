"""What stands for the images of old classes: its cost, and the diagnosis of old statistics."""

from collections.abc import Iterator
from typing import NamedTuple

from rich import box
from rich.table import Table

from flcl.report.reading import percent
from flcl.runs.results import Bytes, ClassifierResults, OldClasses, Results

TITLE = "Statistics of old classes"
MEANING = (
    "Accuracy in % over all classes so far, if the statistics of old classes were stale (they "
    "never followed the features), as in the run, or true (counted again from all images)."
)


class Diagnosed(NamedTuple):
    """The accuracy of a head over all groups learned after a task, with three kinds of statistics.

    Attributes:
      task: the number of the task.
      head: the name of the head.
      stale, used, true: see `results.StatisticsRow`; used: those of the run.
    """

    task: int
    head: str
    stale: float
    used: float
    true: float


def diagnosed(results: Results) -> list[Diagnosed]:
    """The head of the method after every task, then the others after the newest; may be empty."""
    if not isinstance(results, ClassifierResults):
        return []
    counts = results.test_counts

    def mean(values) -> float:
        known = counts[: len(values)]
        return sum(v * n for v, n in zip(values, known, strict=True)) / sum(known)

    rows = []
    for task, row in enumerate(results.rows, start=1):
        for head in row.statistics.true if row.statistics else ():
            kinds = (row.statistics.stale[head], row.heads[head], row.statistics.true[head])
            rows.append(Diagnosed(task, head, *map(mean, kinds)))
    newest = len(results.rows)
    first = [row for row in rows if row.head == results.head]
    return first + [row for row in rows if row.head != results.head and row.task == newest]


def tables(results: Results) -> Iterator[Table]:
    """The diagnosis as a table, if there is one."""
    rows = diagnosed(results)
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("old statistics", no_wrap=True)
    for name in ("stale", "as used", "true"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(name_of(row), percent(row.stale), percent(row.used), percent(row.true))
    yield table


def name_of(row: Diagnosed) -> str:
    """The head and the task of a row."""
    return f"{row.head.replace('_', ' ')}, after task {row.task}"


def facts(results: ClassifierResults) -> Iterator[tuple[str, str]]:
    """(name, value) of what stands for old images, and of its cost in bytes."""
    old: OldClasses | None = results.old_classes
    if old is None:
        return
    classes = len(results.class_names)
    yield "bytes of the statistics", _bytes(old.statistics, classes)
    if old.generator:
        yield "bytes of the generator", _bytes(old.generator, classes)
    images = old.real_images_per_class
    name = f"bytes of {images} real images per class, which are not stored"
    yield name, _bytes(old.real_images, classes)
    if old.samples_per_class:
        yield "samples of each old class", f"{old.samples_per_class:,}"
    if old.unlabelled_images:
        yield "images without labels for the drift", f"{old.unlabelled_images:,}"


def _bytes(needed: Bytes, classes: int) -> str:
    total = needed.once + classes * needed.per_class
    return f"{total:,} ({needed.once:,} once, {needed.per_class:,} per class)"
