"""The accuracy of every row over the tasks: the mean of its runs with a band of one deviation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from flcl.comparison.stored import StoredRun
from flcl.comparison.table import Comparison, Row
from flcl.report import reading
from flcl.report.pictures import grids
from flcl.report.pictures.canvas import INK, MAIN, OTHERS, chart, save, task_ticks

_STYLES = ("-", "--", ":", "-.")


def plot(comparison: Comparison, path: Path) -> Path:
    """Draws the curves in a file, PNG, SVG or PDF by its ending; returns the path.

    They are those of the head of the first column of accuracies. Rows that were trained on all
    tasks at once are horizontal lines.
    """
    head = next((column.head for column in comparison.columns if column.head is not None), "")
    figure, axes = chart((8.4, 4.6), "")
    for number, row in enumerate(comparison.rows):
        colour, line = style_of(number, len(comparison.rows))
        accuracies = of_runs(row, head)
        if not accuracies.size:
            continue
        mean = 100 * accuracies.mean(axis=0)
        spread = 100 * accuracies.std(axis=0, ddof=1) if len(accuracies) > 1 else 0 * mean
        label, style = grids.plain(row.name), {"color": colour, "lw": 1.8, "ls": line}
        if row.runs[0].joint:
            axes.axhline(mean[-1], label=label, **style)
            continue
        tasks = np.arange(1, len(mean) + 1)
        axes.plot(tasks, mean, "o", ms=3.5, color=colour)
        axes.plot(tasks, mean, label=label, **style)
        axes.fill_between(tasks, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)
    task_ticks(axes, max(len(run.results.matrix) for row in comparison.rows for run in row.runs))
    of_head = f", head {reading.head_name(head)}" if head else ""
    axes.set_ylabel(f"accuracy on all classes so far, %{of_head}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    save(figure, path)
    return path


def of_runs(row: Row, head: str) -> np.ndarray:
    """The accuracy after each task of the runs of a row: [runs, T]; empty without that head."""
    curves = [curve for run in row.runs if (curve := _curve(run, head))]
    lengths = {len(curve) for curve in curves}
    return np.array(curves, float) if len(lengths) == 1 else np.zeros((0, 0))


def _curve(run: StoredRun, head: str) -> Sequence[float | None]:
    if not head:
        return run.results.summary.accuracy_per_task
    return run.heads[head].summary.accuracy_per_task if head in run.heads else ()


def style_of(number: int, count: int) -> tuple:
    """Colour and line of a row: the house's colours while they last."""
    few = (MAIN, *OTHERS)
    if count <= len(few):
        return few[number], "-"
    shades = colormaps["turbo"](np.linspace(0.05, 0.95, count))
    return shades[number], _STYLES[number % len(_STYLES)]
