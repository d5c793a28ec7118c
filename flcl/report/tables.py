"""Results as tables: for the terminal with colours, or as plain text.

All functions take the content of `results.json`; numbers are shown in percent.
"""

import io
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

SUMMARY = (
    ("last_accuracy", "last accuracy", "all classes after the last task"),
    ("average_incremental_accuracy", "average incremental accuracy", "mean over tasks"),
    ("forgetting", "forgetting", "best earlier accuracy minus the last one"),
    ("backward_transfer", "backward transfer", "last accuracy minus the first one"),
)
REFERENCES = (
    ("ceiling", "the same judge trained on real images"),
    ("fidelity", "samples that this judge recognises"),
)


def print_results(results: dict, console: Console | None = None) -> None:
    """Prints the accuracy matrix with ceiling and fidelity below it, then the derived numbers."""
    console = console or Console()
    console.print(Text(title(results) + " · accuracy in %", style="bold"))
    for table in tables(results, console.width):
        console.print(table)


def as_text(results: dict, width: int = 100) -> str:
    """The same without colours, lines at most `width` characters long."""
    file = io.StringIO()
    print_results(results, Console(file=file, width=width, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def tables(results: dict, width: int) -> Iterator[Table]:
    """The matrix, in as many pieces side by side as `width` characters need, and the summary."""
    headings = _headings(results)
    sizes = [max(6, *map(len, heading.split("\n"))) + 2 for heading in headings]
    room = width - 24  # the row names, the column "all" and the frame
    pieces, used = [[]], 0
    for column, size in enumerate(sizes):
        if used + size > room and pieces[-1]:
            pieces.append([])
            used = 0
        pieces[-1].append(column)
        used += size
    for piece in pieces:
        yield _matrix(results, headings, piece, last=piece is pieces[-1])
    yield _summary(results)


def title(results: dict) -> str:
    """One line that says which run this is: name, method, scenario and seed."""
    parts = [results[key] for key in ("name", "method", "scenario") if results.get(key)]
    return " · ".join([*parts, f"seed {results.get('seed', 'unknown')}"])


def overall(results: dict, name: str) -> float | None:
    """The "ceiling" (image-weighted) or "fidelity" (mean over classes) of a run; None = unknown."""
    if name == "fidelity":
        values = list(results.get("fidelity", {}).get("per_class", {}).values())
        return sum(values) / len(values) if values else None
    values, counts = results.get("ceiling"), results["test_counts"]
    if not values:
        return None
    return sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)


def _matrix(results: dict, headings: list[str], columns: list[int], last: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("after task", no_wrap=True)
    for column in columns:
        table.add_column(headings[column], justify="right", no_wrap=True)
    if last:
        table.add_column("all", justify="right", style="bold", no_wrap=True)

    def add(name: str, values: list, mean: float | None, **options) -> None:
        cells = [percent(values[column]) for column in columns]
        if any(cells) or (last and mean is not None):
            table.add_row(name, *cells, *([percent(mean)] if last else []), **options)

    rows = results["matrix"]
    after = results.get("summary", {}).get("accuracy_per_task", [None] * len(rows))
    for number, (row, mean) in enumerate(zip(rows, after, strict=True), start=1):
        joint = number == 1 and None not in row and len(row) > 1
        add("joint" if joint else str(number), row, mean, end_section=number == len(rows))
    fidelity = results.get("fidelity", {}).get("per_task", [])
    missing = [None] * (len(results["tasks"]) - len(fidelity))
    add("fidelity", [*fidelity, *missing], overall(results, "fidelity"), style="cyan")
    if results.get("ceiling"):
        add("ceiling", results["ceiling"], overall(results, "ceiling"), style="green")
    return table


def _summary(results: dict) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim")
    summary = results.get("summary", {})
    for key, label, meaning in SUMMARY:
        if summary.get(key) is not None:
            table.add_row(label, percent(summary[key]), meaning)
    for key, meaning in REFERENCES:
        if (value := overall(results, key)) is not None:
            table.add_row(key, percent(value), meaning)
    return table


def _headings(results: dict) -> list[str]:
    """The tasks' numbers, and below them the names of their classes where all are short."""
    names = results["class_names"]
    lines = [" ".join(str(names[label]) for label in task) for task in results["tasks"]]
    short = max(map(len, lines)) <= 9
    return [f"{j}\n{line}" if short else str(j) for j, line in enumerate(lines, start=1)]


def percent(value: float | None) -> str:
    """0.9167 -> "91.7"; None -> an empty string."""
    return "" if value is None else f"{100 * value:.1f}"
