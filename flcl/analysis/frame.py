"""Numbers of an analysis: named columns, as CSV and as a table for people."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Value = str | int | float | None


class Frame(NamedTuple):
    """Rows of numbers under the names of their columns; None = unknown."""

    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]

    def column(self, name: str) -> list:
        """The values of a column, row by row."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def where(self, **values) -> "Frame":
        """The rows that have these values in these columns."""
        places = {self.columns.index(name): value for name, value in values.items()}
        kept = [row for row in self.rows if all(row[at] == each for at, each in places.items())]
        return Frame(self.columns, kept)

    def csv(self) -> str:
        """The rows as CSV with a header; floats have six digits, None is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_text(value) for value in row] for row in self.rows)
        return text.getvalue()


class Analysis(NamedTuple):
    """One analysis of a run.

    Attributes:
      title: what it shows.
      data: all numbers, for the CSV file.
      short: the numbers for people.
      draw: writes the picture to a path; None = there is none.
      note: how to read it.
    """

    title: str
    data: Frame
    short: Frame
    draw: Callable[[Path], None] | None
    note: str


def mean_and_deviation(values: list) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) of the known values; None if there are too few."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else None


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
