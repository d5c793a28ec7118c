"""A comparison in a terminal; what is not shown by the runs is grey."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from flcl.comparison import writing
from flcl.comparison.table import Comparison
from flcl.report.console import Console
from flcl.report.tables import in_pieces

_GAP = 3  # characters between two columns


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Prints the table and its notes; columns that do not fit are in further tables below."""
    console = console or Console()
    rows = list(writing.cells(comparison))
    names = max([3, *(len(name) for name, _ in rows)])
    for columns in _pieces(comparison, rows, console.width - names - _GAP):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", style="bold", no_wrap=True)
        for place in columns:
            table.add_column(comparison.columns[place].heading, justify="right")
        for name, entries in rows:
            style = "green" if name == comparison.reference else ""
            cells = [_cell(*entries[place]) for place in columns]
            table.add_row(Text(name, style=style), *cells)
        console.print(table)
    for note in comparison.notes:
        console.print(note, style="dim", highlight=False)


def _pieces(comparison: Comparison, rows: Sequence, room: int) -> list[list[int]]:
    """The places of the columns, divided into pieces that need at most `room` characters."""
    sizes = []
    for place, column in enumerate(comparison.columns):
        texts = [entries[place][0] for _, entries in rows]
        # A heading may take several lines, one for each word.
        sizes.append(max(map(len, [*texts, *column.heading.split()])) + _GAP)
    return in_pieces(sizes, room)


def _cell(text: str, is_shown: bool) -> Text:
    return Text(text, style="" if is_shown else "bright_black", no_wrap=True)
