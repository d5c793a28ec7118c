"""How good generated images are beside real ones: the numbers of a run as text.

The fidelity of samples says nothing about their diversity: a generator that repeats one good image
has the best one. So wherever fidelity is shown, the recall stands beside it, or that it is unknown.
"""

from collections.abc import Iterator
from typing import NamedTuple

from rich.table import Table

from flcl.metrics.frechet import BIASED_BELOW
from flcl.report.reading import percent
from flcl.runs.results import GeneratorResults, Results

TITLE = "Samples beside real images"
UNKNOWN = "not measured"
NO_DIVERSITY = (
    "The diversity of the samples was not measured (judge.metrics without prdc), so the fidelity "
    "does not tell whether they differ from each other."
)


class Row(NamedTuple):
    """A line of the table: name, one cell for each group, the cell of all, and its meaning."""

    name: str
    cells: tuple[str, ...]
    all: str
    meaning: str


def rows(results: Results) -> list[Row]:
    """The numbers of the newest task for each group and for all; empty if there are none.

    With fewer than some 5,000 samples the kernel distance comes first: it has no bias.
    """
    quality = results.quality if isinstance(results, GeneratorResults) else None
    if quality is None:
        return []
    groups = [*quality.per_task, *[None] * (len(results.tasks) - len(quality.per_task))]
    found = []
    for name, value, meaning in _lines(is_biased(results)):
        cells = [value(group) if group else "" for group in groups]
        of_all = value(quality.all) if quality.all else ""
        if of_all or any(cells):
            found.append(Row(name, tuple(cells), of_all, meaning))
    return found


def is_biased(results: GeneratorResults) -> bool:
    """Whether there are too few images for the Fréchet distance."""
    every = results.quality and results.quality.all
    return bool(every) and min(every.generated, every.real) < BIASED_BELOW


def recalls(results: Results) -> list[str]:
    """The recall of each group for the line after the fidelity."""
    if not isinstance(results, GeneratorResults) or results.quality is None:
        return [UNKNOWN if results.matrix else ""] + [""] * (len(results.tasks) - 1)
    known = [percent(group and group.recall) for group in results.quality.per_task]
    return [*known, *[""] * (len(results.tasks) - len(known))]


def of_classes(results: Results) -> dict[str, str]:
    """The recall of each class by name; empty if none was measured."""
    if not isinstance(results, GeneratorResults) or results.quality is None:
        return {}
    values = results.quality.per_class.items()
    return {name: percent(value and value.recall) for name, value in values}


def notes(results: Results) -> Iterator[str]:
    """Sentences about the numbers: which features, how many images, what they do not tell."""
    if not isinstance(results, GeneratorResults) or not results.fidelity.per_task:
        return
    quality = results.quality
    every = quality and quality.all
    if quality is None or (every and every.recall is None):
        yield NO_DIVERSITY
    if not every:
        return
    sha256 = f" (SHA-256 {quality.sha256})" if quality.sha256 else ""
    yield (
        f"Features: {quality.features}{sha256}. {every.generated:,} samples and {every.real:,} "
        f"real test images; {every.compared:,} of each in the kernel distance, in precision, "
        "recall, density and coverage."
    )
    if every.fd is not None and is_biased(results):
        yield (
            f"With fewer than {BIASED_BELOW:,} images of each kind the Frechet distance (FD) is "
            "too large, and the more so the fewer there are: compare the kernel distance (KD), "
            "which has no bias."
        )


def line(results: Results) -> str:
    """The two distances over all classes, such as "KD 0.0123 ± 0.002, FD 3.41"; may be empty."""
    quality = results.quality if isinstance(results, GeneratorResults) else None
    if quality is None or quality.all is None:
        return ""
    every = quality.all
    error = "" if every.kd_error is None else f" ± {_plain(every.kd_error, 2)}"
    texts = [
        "" if every.kd is None else f"KD {_plain(every.kd)}{error}",
        "" if every.fd is None else f"FD {_plain(every.fd)}",
    ]
    if not is_biased(results):
        texts.reverse()
    return ", ".join(filter(None, texts))


def fill(table: Table, results: Results, columns: list[int], last: bool) -> Table:
    """Adds the rows to a table that has the columns of some groups; last: and one over all."""
    if last:
        table.add_column("all", justify="right", style="bold", no_wrap=True)
    for row in rows(results):
        cells = [row.cells[column] for column in columns]
        table.add_row(row.name, *cells, *([row.all] if last else []))
    return table


def _lines(kernel_first: bool) -> list[tuple]:
    """(name, number as text, meaning) of each line."""
    kernel = (
        ("KD", lambda v: _plain(v.kd), "unbiased kernel distance to the test images"),
        ("KD, ± error", lambda v: _plain(v.kd_error, 2), "standard error of KD"),
    )
    frechet = (("FD", lambda v: _plain(v.fd), "Frechet distance to the test images"),)
    return [
        *((*kernel, *frechet) if kernel_first else (*frechet, *kernel)),
        ("precision", lambda v: percent(v.precision), "samples that are near test images, in %"),
        ("recall", lambda v: percent(v.recall), "test images that have a sample near them, in %"),
        ("density", lambda v: _plain(v.density), "test images around a sample; 1 for real images"),
        ("coverage", lambda v: percent(v.coverage), "test images with a sample in reach, in %"),
        (
            "copies",
            lambda v: percent(v.copies),
            "samples nearer to a training image than all other training images, in %",
        ),
        (
            "copies, test images",
            lambda v: percent(v.copies_of_test),
            "the same share of real test images, which copy nothing",
        ),
    ]


def _plain(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"
