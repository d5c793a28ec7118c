"""Results as tables, for a terminal with colours or as plain text.

Numbers are shown in percent.
"""

import io
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flcl.report import reading
from flcl.report.console import Console
from flcl.report.numbers import old_classes, quality
from flcl.report.reading import percent
from flcl.runs.results import (
    ClassifierResults,
    GeneratorResults,
    HeadResults,
    Results,
)
from flcl.shown import shown


def print_results(results: Results, console: Console | None = None) -> None:
    """Prints the accuracy matrix with its extra rows, then the derived numbers.

    For a classifier the last line says which head answers.
    """
    console = console or Console()
    console.print(reading.title(results) + " · accuracy in %", style="bold")
    for table in tables(results, console.width):
        console.print(table)
    lines = (reading.whose_answers(results), reading.gone(results), *quality.notes(results))
    for line in filter(None, lines):
        console.print(line, highlight=False)


def as_text(results: Results, width: int = 100) -> str:
    """The same without colours, in lines of at most `width` characters."""
    file = io.StringIO()
    print_results(results, Console(file=file, width=width, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def tables(results: Results, width: int) -> Iterator[Table]:
    """The matrix, divided by columns into pieces that fit `width` characters, and the summary.

    For a classifier also the drift of its features, the diagnosis of its statistics and the rank of
    every task, if they are known.
    The matrix is that of the method's head; every other head has its last row.
    """
    headings = _headings(results)
    # Without the row names, the column "all" and the frame.
    pieces = _pieces(headings, width - 24)
    for piece in pieces:
        yield _matrix(results, headings, piece, last=piece is pieces[-1])
    if quality.rows(results):
        wide = _pieces(headings, width - 32, least=9)
        for piece in wide:
            empty = _table("samples", headings, piece)
            yield quality.fill(empty, results, piece, last=piece is wide[-1])
    yield from _summaries(results, width)
    if drift := reading.last_drift(results):
        # Its names are longer, and it has no column "all".
        names = [reading.DRIFTS.get(kind, kind) for kind in drift]
        for piece in _pieces(headings, width - 2 - max(map(len, names))):
            yield _drift(drift, headings, piece)
    yield from old_classes.tables(results)
    if ranks := reading.ranks(results):
        yield _ranks(*ranks)


def _pieces(headings: list[str], room: int, least: int = 6) -> list[list[int]]:
    """The columns, divided into pieces that need at most `room` characters.

    least: the characters of a cell.
    """
    return in_pieces([max(least, *map(len, each.split("\n"))) + 3 for each in headings], room)


def in_pieces(sizes: Sequence[int], room: int) -> list[list[int]]:
    """The places of columns of these sizes, in pieces that need at most `room` characters."""
    pieces, used = [[]], 0
    for column, size in enumerate(sizes):
        if used + size > room and pieces[-1]:
            pieces.append([])
            used = 0
        pieces[-1].append(column)
        used += size
    return pieces


def _matrix(results: Results, headings: list[str], columns: list[int], last: bool) -> Table:
    table = _table("after task", headings, columns)
    if last:
        table.add_column("all", justify="right", style="bold", no_wrap=True)

    def add(name: str, values: Sequence, mean: float | None, **options) -> None:
        shown = [value if isinstance(value, str) else percent(value) for value in values]
        cells = [shown[column] for column in columns]
        if any(cells) or (last and mean is not None):
            table.add_row(name, *cells, *([percent(mean)] if last else []), **options)

    rows = reading.tested(results)
    pairs = zip(rows, results.summary.accuracy_per_task, strict=True)
    for number, (row, mean) in enumerate(pairs, start=1):
        joint = number == 1 and "" not in row and len(row) > 1
        add("joint" if joint else str(number), row, mean, end_section=number == len(rows))
    for name, head in reading.other_heads(results).items():
        add(_head(name), head.matrix[-1], head.summary.last_accuracy, style="cyan")
    if isinstance(results, GeneratorResults):
        fidelity = results.fidelity.per_task
        missing = [None] * (len(results.tasks) - len(fidelity))
        add("fidelity", [*fidelity, *missing], reading.overall(results, "fidelity"), style="cyan")
        if fidelity:
            recall = reading.overall(results, "recall")
            add("recall", quality.recalls(results), recall, style="cyan")
        if results.ceiling:
            add("ceiling", results.ceiling, reading.overall(results, "ceiling"), style="green")
    return table


def _summaries(results: Results, width: int) -> Iterator[Table]:
    """The derived numbers, with a column for every head.

    If they are wider than `width`, a second table has the two accuracies of the other heads.
    """
    others = reading.other_heads(results)
    table = _summary(results, others)
    console = Console(width=10**4)
    if not others or Measurement.get(console, console.options, table).maximum <= width:
        yield table
        return
    yield _summary(results, {})
    keys = ("last_accuracy", "average_incremental_accuracy")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("other heads", no_wrap=True)
    for key, label, _ in reading.SUMMARY:
        if key in keys:
            table.add_column(label, justify="right", style="cyan")
    for name, head in others.items():
        table.add_row(_head(name), *(percent(getattr(head.summary, key)) for key in keys))
    yield table


def _summary(results: Results, others: Mapping[str, HeadResults]) -> Table:
    """The derived numbers of the method; each of `others` has a column beside them."""
    table = Table(box=box.SIMPLE_HEAD, show_header=reading.is_classifier(results), pad_edge=False)
    table.add_column(no_wrap=True)
    head = _head(results.head) if isinstance(results, ClassifierResults) else ""
    table.add_column(head, justify="right", style="bold", no_wrap=True)
    for name in others:
        table.add_column(_head(name), justify="right", style="cyan", no_wrap=True)
    table.add_column(style="dim")
    task_mean = reading.TASK_MEAN if reading.is_classifier(results) else ()
    for key, label, meaning in (*reading.SUMMARY, *task_mean):
        if (value := getattr(results.summary, key)) is not None:
            beside = [percent(getattr(each.summary, key)) for each in others.values()]
            table.add_row(label, percent(value), *beside, meaning)
    for key, meaning in reading.REFERENCES:
        if (value := reading.overall(results, key)) is not None:
            table.add_row(key, percent(value), *([""] * len(others)), meaning)
    return table


def _head(name: str) -> str:
    """The name of a head, short enough for a row or a column."""
    return reading.shorten(shown(reading.head_name(name)), 14)


def _drift(drift: dict[str, tuple], headings: list[str], columns: list[int]) -> Table:
    """How far the features of test images have moved since the end of their task."""
    table = _table("drift in %", headings, columns)
    for kind, row in drift.items():
        table.add_row(reading.DRIFTS.get(kind, kind), *(percent(row[c]) for c in columns))
    return table


def _ranks(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The rank of every task, and what it was chosen from."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _table(first: str, headings: list[str], columns: list[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        # A `Text`, because the second line of a heading is no part of a name.
        table.add_column(Text(headings[column]), justify="right", no_wrap=True)
    return table


def _headings(results: Results) -> list[str]:
    """Task numbers; the second line is the domain, or the classes if all names are short."""
    names = results.class_names
    lines = [shown(" ".join(names[label] for label in task)) for task in results.tasks]
    short = max(map(len, lines)) <= 9
    if reading.has_domains(results):
        lines, short = (
            [reading.shorten(shown(name), 14) for name in reading.group_names(results)],
            True,
        )
    return [f"{j}\n{line}" if short else str(j) for j, line in enumerate(lines, start=1)]


def print_evaluation(results: dict, console: Console | None = None) -> None:
    """Prints the result of `evaluate_on` of a classifier: top-1, top-5 and accuracy per class.

    If the images have domains, also the accuracy on each of them.
    """
    console = console or Console()
    summary = Table(title=str(results["data"]), box=box.SIMPLE_HEAD, show_header=False)
    summary.add_row("images", f"{results['images']:,}")
    summary.add_row("top-1 accuracy", percent(results["top1"]))
    summary.add_row("top-5 accuracy", percent(results["top5"]))
    summary.add_row("head", f"{results['head']}, after task {results['after_task']}")
    console.print(summary)
    if results["per_domain"]:
        table = Table("domain", "accuracy", box=box.SIMPLE_HEAD)
        for name, value in results["per_domain"].items():
            table.add_row(str(name), percent(value) or "-")
        console.print(table)
    table = Table("class", "images", "accuracy", box=box.SIMPLE_HEAD)
    rows = zip(results["class_names"], results["confusion"], strict=True)
    for name, row in rows:
        table.add_row(str(name), str(sum(row)), percent(results["per_class"][name]) or "-")
    console.print(table)
