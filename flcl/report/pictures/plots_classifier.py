"""Pictures that only a continual classifier has: chosen ranks, drift and confusion."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from flcl.report import reading
from flcl.report.pictures import grids
from flcl.report.pictures.canvas import CEILING, FAINT, HEAT, INK, MAIN, chart, save, sheet, style
from flcl.report.pictures.canvas import task_ticks as ticks
from flcl.runs.results import RankSelection

_MOST_NAMES = 50
"""Largest number of class names on an axis of a confusion matrix; of more, some are left out."""


def plot_rank_selection(
    selection: Sequence[RankSelection], path: str | Path, *, title: str = ""
) -> None:
    """Rank of every task on a heat map of p(r), with the complexity H in a panel below.

    selection: one entry per task; there is no panel of H if no task has a complexity.
    """
    complexity = [entry.complexity for entry in selection]
    panels = 2 if any(value is not None for value in complexity) else 1
    ranks = sorted({r for entry in selection for r in (*entry.candidates, entry.rank)})
    width = max(4.8, 1.6 + 0.42 * len(selection))
    figure = sheet((width, 1.3 + 0.3 * len(ranks) + 1.7 * (panels - 1)), title)
    ratios = [max(1.5, 0.3 * len(ranks)), 1.5][:panels]
    top, *below = figure.subplots(panels, 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
    _rank_heat(figure, top, selection, ranks)
    for axes in below:
        style(axes)
        tasks = [entry.task for entry in selection]
        values = np.array([np.nan if value is None else value for value in complexity], float)
        axes.plot(tasks, values, "-o", color=CEILING, lw=1.8, ms=5)
        axes.set_ylabel("complexity H")
        axes.margins(y=0.15)
    last = below[-1] if below else top
    ticks(last, len(selection))
    last.set_xlabel("task")
    save(figure, path)


def _rank_heat(
    figure: Figure, axes: Axes, selection: Sequence[RankSelection], ranks: list[int]
) -> None:
    """p(r) as colours, and the rank as a ring with its number."""
    style(axes, grid=False)
    shown = np.full((len(ranks), len(selection)), np.nan)
    for column, entry in enumerate(selection):
        for rank, p in zip(entry.candidates, entry.probabilities or (), strict=False):
            shown[ranks.index(rank), column] = p
    extent = (0.5, len(selection) + 0.5, -0.5, len(ranks) - 0.5)
    picture = axes.imshow(
        np.ma.masked_invalid(shown), cmap=HEAT.with_extremes(bad="#ffffff"), vmin=0, vmax=1,
        aspect="auto", origin="lower", extent=extent,
    )  # fmt: skip
    if not np.isnan(shown).all():
        bar = figure.colorbar(picture, ax=axes, pad=0.02, aspect=12)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=INK, length=0)
        bar.set_label("p(r)", fontsize=9, color=INK)
    for column, entry in enumerate(selection, start=1):
        row = ranks.index(entry.rank)
        axes.plot(column, row, "o", ms=15, mfc="white", mec=MAIN, mew=1.8, clip_on=False)
        axes.annotate(
            str(entry.rank), (column, row), ha="center", va="center_baseline",
            fontsize=7.5, color=MAIN, weight="bold",
        )  # fmt: skip
    axes.set_yticks(range(len(ranks)), map(str, ranks))
    axes.set_ylabel("rank r")


def plot_drift(
    drift: dict[str, Sequence], names: Sequence[str], path: str | Path, *, title: str = ""
) -> None:
    """How far the features of each group's test images moved since the end of their task.

    drift: kind -> nested lists [T, G], None for a group that is not learned; one panel per kind.
    names: names of the G groups. No file is written if no group is older than the newest task.
    """
    drift = {kind: _array(rows) for kind, rows in drift.items() if len(rows) > 1}
    if not drift:
        return
    figure = sheet((4.2 * len(drift) + 1.4, 3.6), title)
    for axes, (kind, rows) in zip(
        figure.subplots(1, len(drift), squeeze=False)[0], drift.items(), strict=True
    ):
        style(axes)
        tasks = np.arange(1, len(rows) + 1)
        old = (
            np.isfinite(rows).sum(axis=0) > 1
        )  # a group with one point, which is always 0, has no line
        shades = colormaps["viridis"](np.linspace(0.0, 0.85, max(1, old.sum())))
        for shade, group in zip(shades, np.flatnonzero(old), strict=False):
            name = grids.plain(reading.shorten(str(names[group]), 18))
            axes.plot(tasks, rows[:, group], "-o", color=shade, lw=1.5, ms=3.5, label=name)
        ticks(axes, len(rows))
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"features {reading.DRIFTS.get(kind, kind)}")
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, fontsize=8, labelcolor=INK,
        loc="outside right center", ncols=1 + len(names) // 15,
    )  # fmt: skip
    save(figure, path)


def plot_confusion(
    matrix: np.ndarray, names: Sequence[str], path: str | Path, *, title: str = ""
) -> None:
    """Heat map of a confusion matrix [K, K] (rows = truth), each row in percent of its images.

    names: names of the K classes. Numbers are written for up to 12 classes; of more than 50 classes
    only some have names. The colour scale is a square root, which makes rare mistakes visible. A
    row without images is white.
    """
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(names) != len(matrix):
        raise ValueError(
            f"confusion matrix {matrix.shape} with {len(names)} names: expected [K, K] and K names"
        )
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(100 * matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0)
    count = len(matrix)
    side = float(np.clip(0.5 * count, 2.6, 9.0))
    figure, axes = chart((side + 2.0, side + 1.4), title, grid=False)
    picture = axes.imshow(
        np.ma.masked_invalid(shares), cmap=HEAT.with_extremes(bad="#ffffff"),
        norm=PowerNorm(0.5, 0, 100), interpolation="nearest",
    )  # fmt: skip
    bar = figure.colorbar(picture, ax=axes, pad=0.02, aspect=30, ticks=[0, 1, 5, 20, 50, 100])
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    bar.set_label("% of the true class", fontsize=9, color=INK)
    if count <= 12:
        for (row, column), value in np.ndenumerate(shares):
            if value >= 0.05:
                colour = "white" if value > 25 else INK
                text = "100" if value > 99.95 else f"{value:.1f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7.5)
    _name_axes(axes, names)
    save(figure, path)


def _name_axes(axes: Axes, names: Sequence[str]) -> None:
    """Class names on both axes, as large as possible; if there are many, only some."""
    step = -(-len(names) // _MOST_NAMES)
    places = range(0, len(names), step)
    shown = [grids.plain(reading.shorten(str(names[place]), 16)) for place in places]
    size = float(np.clip(8.5 - 0.06 * len(places), 6.0, 8.0))
    axes.set_xticks(places, shown, fontsize=size, rotation=90)
    axes.set_yticks(places, shown, fontsize=size)
    axes.tick_params(length=2 if step > 1 else 0)
    axes.spines[:].set(visible=True, color=FAINT)
    some = "" if step == 1 else f" (one in {step} named)"
    axes.set_xlabel(f"called{some}")
    axes.set_ylabel(f"true class{some}")


def _array(rows: Sequence) -> np.ndarray:
    return np.array([[np.nan if x is None else x for x in row] for row in rows], float)
