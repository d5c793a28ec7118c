"""One number of every row against another one, such as accuracy against parameters per class."""

import itertools
from pathlib import Path

import numpy as np

from flcl import hints
from flcl.comparison import columns as named
from flcl.comparison import numbers
from flcl.comparison.columns import Column
from flcl.comparison.curves import style_of
from flcl.comparison.table import Comparison
from flcl.report.pictures import grids
from flcl.report.pictures.canvas import INK, chart, save


def plot(comparison: Comparison, path: Path, against: str, by: str = "") -> Path:
    """Draws the first column of a table against the number `against`; returns the path.

    A point is the mean of a row with a bar of one deviation. Its number is that of the legend, and
    of the row in the table. by: a key, such as `adapter.family`; rows with the same value of it
    have one colour and are joined by a line. Rows without one of the two numbers are left out.

    Raises `ValueError` for a number or a key that no run has.
    """
    runs = [run for row in comparison.rows for run in row.runs]
    across = named.find(against, runs)
    known = list(dict.fromkeys(itertools.chain.from_iterable(run.keys() for run in runs)))
    if by and by not in known:
        near = hints.did_you_mean(by, known)
        raise ValueError(f"--by={hints.quoted(by)}: no run has this key.{near}")
    figure, axes = chart((8.4, 4.6), "")
    points, names = points_of(comparison, across), [row.name for row in comparison.rows]
    groups: dict[object, list[int]] = {}
    for number in points:
        value = comparison.rows[number].runs[0].keys().get(by)
        groups.setdefault(value if by else number, []).append(number)
    for place, members in enumerate(groups.values()):
        colour = style_of(place, len(groups))[0]
        line = np.array([points[number][:2] for number in sorted(members, key=points.get)])
        axes.plot(*line.T, color=colour, lw=1.2, alpha=0.6)
        for number in members:
            x, y, deviation = points[number]
            label = f"{number + 1}: {grids.plain(names[number])}"
            axes.errorbar(x, y, deviation, fmt="o", ms=5, capsize=2, color=colour, label=label)
            axes.annotate(
                str(number + 1), (x, y), (4, 4), textcoords="offset points", fontsize=8, color=INK
            )
    axes.set(xlabel=_label(across), ylabel=_label(comparison.columns[0]))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    save(figure, path)
    return path


def points_of(comparison: Comparison, across: Column) -> dict[int, tuple[float, float, float]]:
    """(x, y, deviation of y) of the rows that have both numbers, by the number of the row."""
    points = {}
    for number, row in enumerate(comparison.rows):
        x, y = numbers.over_runs([across.value(run) for run in row.runs]), row.cells[0]
        if x.mean is not None and y.mean is not None:
            points[number] = (x.mean, y.mean, y.sd or 0.0)
    return points


def _label(column: Column) -> str:
    # The heading of a table may be short, such as `last`.
    head, _, name = column.name.rpartition(".")
    of_head = f" of {head}" if column.head else ""
    unit = {"percent": ", %", "seconds": ", s"}.get(column.unit, "")
    return f"{name.replace('_', ' ')}{of_head}{unit}"
