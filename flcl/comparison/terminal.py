"""A comparison in a terminal; what is not shown by the runs is grey."""

from rich import box
from rich.table import Table
from rich.text import Text

from flcl.comparison import writing
from flcl.comparison.table import Comparison
from flcl.report.console import Console


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Prints the table and its notes."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", style="bold")
    for column in comparison.columns:
        table.add_column(column.heading, justify="right")
    for name, entries in writing.cells(comparison):
        style = "green" if name == comparison.reference else ""
        cells = [Text(text, style="" if is_shown else "bright_black") for text, is_shown in entries]
        table.add_row(Text(name, style=style), *cells)
    console.print(table)
    for note in comparison.notes:
        console.print(note, style="dim", highlight=False)
