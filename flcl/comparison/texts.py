"""The texts of cells, the same in every form of a table."""

from flcl.comparison.columns import Column
from flcl.comparison.numbers import Cell

NONE, NOT_SHOWN = "-", "not shown"


def number(value: float, unit: str, sign: str = "") -> str:
    """A number in its unit: one decimal of percent, whole seconds, counts with separators."""
    if unit == "percent":
        return f"{value:{sign}z.1f}"
    if unit == "seconds" or abs(value) >= 100 or value == int(value):
        return f"{value:{sign}z,.0f}"
    return f"{value:{sign}.4g}"


def cell(column: Column, cell: Cell) -> str:
    """`92.5 ± 0.4 (3)`, `-0.7 [-1.0, -0.4] (3)` for a difference, `± 1.4` for an error."""
    if cell.mean is None:
        return NONE
    if column.kind == "error":
        return f"± {number(cell.mean, column.unit)}"
    if column.kind == "difference":
        mean, low, high = (
            value if value is None else number(value, column.unit, "+")
            for value in (cell.mean, cell.low, cell.high)
        )
        return f"{mean} ({cell.n})" if low is None else f"{mean} [{low}, {high}] ({cell.n})"
    spread = "" if not _spreads(column, cell) else f" ± {number(cell.sd, column.unit)}"
    return f"{number(cell.mean, column.unit)}{spread} ({cell.n})"


def _spreads(column: Column, cell: Cell) -> bool:
    """Whether the deviation says something: a count that is the same in all runs has none."""
    return cell.sd is not None and (column.unit != "count" or cell.sd > 0)
