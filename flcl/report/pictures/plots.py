"""Pictures of a run. Each `plot_*` writes one PNG file, completely or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy import optimize

from flcl.metrics import matrix as accuracy
from flcl.report import reading
from flcl.report.pictures import grids
from flcl.report.pictures.canvas import CEILING, HEAT, INK, MAIN, OTHERS, chart, save, task_ticks

_REAL = "the same judge trained on real images"
_NAMED = 15  # curves in a legend
_LABEL = 11  # points between the labels at the ends of curves
_BELOW = 2  # layer of the curves of groups, below that of the mean


def plot_accuracy_curve(
    matrix: Sequence,
    counts: Sequence[int],
    path: str | Path,
    *,
    ceiling: float | None = None,
    heads: Mapping[str, Sequence[float]] | None = None,
    names: Sequence[str] | None = None,
    domains: bool = False,
    title: str = "",
) -> None:
    """Accuracy on all classes learned so far, and on each group, after every task.

    matrix [T, G] and counts [G] as in `metrics.matrix` (nested lists with None are accepted too).
    ceiling: accuracy of the judge trained on real images, drawn as a dashed line.
    heads: by name of each head of a classifier, [T] accuracy on all classes learned so far; the
      first is the head of the matrix, the others are thin curves. None = the names are not shown.
    names: names of the groups, None = their numbers; if there are many, only some are shown.
    domains: whether the groups are domains, not classes.
    """
    matrix = _array(matrix)
    tasks = np.arange(1, len(matrix) + 1)
    figure, axes = chart((7.4, 4.4), title)
    _group_curves(figure, axes, matrix, names)
    curve = 100 * accuracy.accuracy_per_task(matrix, np.asarray(counts))
    whole = f"all learned {'domains' if domains else 'classes'}"
    axes.plot(tasks, curve, "-o", color=MAIN, lw=2.4, ms=6, label=whole, zorder=4)
    name, *others = heads or ("",)
    curves = {name if others else "": (curve, MAIN)}
    for number, other in enumerate(others):
        colour, values = OTHERS[number % len(OTHERS)], 100 * np.asarray(heads[other], float)
        label = "the same, other heads" if not number else None
        axes.plot(tasks, values, "--s", color=colour, lw=1.2, ms=3, label=label, zorder=3)
        curves[other] = (values, colour)
    lowest = min(np.nanmin(100 * matrix), *(values.min() for values, _ in curves.values()))
    if ceiling is not None:
        dashes = (0, (5, 3))
        axes.axhline(100 * ceiling, color=CEILING, lw=1.4, ls=dashes, label=_REAL, zorder=1)
        lowest = min(lowest, 100 * ceiling)
    axes.set_xlim(0.8, max(len(matrix), 2) + 0.2)
    axes.set_ylim(max(0, 10 * np.floor((lowest - 5) / 10)), 101)
    task_ticks(axes, len(matrix))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_ylabel("accuracy on test images, %")
    # The curves of the groups have a separate legend.
    lines = [line for line in axes.get_lines() if line.get_zorder() != _BELOW]
    named = [line for line in lines if not line.get_label().startswith("_")]
    below = {"loc": "outside lower left", "ncols": 2}
    figure.legend(handles=named, frameon=False, fontsize=8, labelcolor=INK, **below)
    _label_ends(figure, axes, tasks[-1], curves)
    save(figure, path)


def plot_matrix(
    matrix: Sequence,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Heat map of the accuracy matrix [T, G] in percent; cells of later groups are empty.

    names: names of the groups on the horizontal axis; None = their numbers.
    """
    matrix = _array(matrix)
    rows, columns = matrix.shape
    cell = 0.62 if columns <= 12 else 0.46
    labels = [str(j) for j in range(1, columns + 1)] if names is None else names
    shown = [grids.shorten(grids.plain(str(name)), 14) for name in labels]
    turned = max(map(len, shown)) > 5
    size = (max(3.2, 1.2 + cell * columns), 1.2 + cell * rows + (0.6 if turned else 0))
    figure, axes = chart(size, title, grid=False)
    colours = HEAT.with_extremes(bad="#ffffff")
    axes.imshow(np.ma.masked_invalid(100 * matrix), cmap=colours, vmin=0, vmax=100, aspect="equal")
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            text = f"{100 * value:.0f}" if columns > 12 else f"{100 * value:.1f}"
            colour = "white" if value > 0.45 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(columns), shown, fontsize=8)
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    ticks = ["joint"] if rows == 1 and columns > 1 else range(1, rows + 1)
    axes.set_yticks(range(rows), ticks, fontsize=8)
    # White lines between the cells.
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("tested on the classes of task" if names is None else "tested on")
    axes.set_ylabel("after task")
    save(figure, path)


def plot_training(
    records: Sequence[dict],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Training loss over the steps of each task, from the records of `metrics.jsonl`.

    names: names of the tasks, None = their numbers. Records without a loss are left out; if no
    record has a loss, no file is written.
    """
    curves: dict[int, list[tuple[int, float]]] = {}
    for record in records:
        if record.get("loss") is not None and str(record["phase"]).startswith("phase"):
            curves.setdefault(record["task"], []).append((record["step"], record["loss"]))
    if not curves:
        return
    figure, axes = chart((7.4, 4.4), title)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(curves)))
    step = -(-len(curves) // _NAMED)
    for number, (task, points) in enumerate(sorted(curves.items())):
        shade = shades[number]
        steps, losses = np.array(sorted(points)).T
        if len(steps) >= 20:
            axes.plot(steps, losses, color=shade, lw=0.8, alpha=0.3)
            axes.plot(steps, _smooth(losses), color=shade, lw=1.8)
        else:  # points, because a curve of one point would be invisible
            axes.plot(steps, losses, "-o", color=shade, lw=0.8, ms=3)
        if number % step == 0:
            name = f"task {task}" if names is None else grids.plain(names[task - 1])
            axes.plot([], [], color=shade, lw=1.8, label=name)
    if any(loss > 0 for points in curves.values() for _, loss in points):
        axes.set_yscale("log")
        # A narrow range contains no power of ten, so the ticks are round values.
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step of the task")
    axes.set_ylabel("training loss")
    _name_groups(figure, axes.get_legend_handles_labels()[0], "training on")
    save(figure, path)


def plot_samples(
    images: np.ndarray,
    names: Sequence[str],
    path: str | Path,
    *,
    real: np.ndarray | None = None,
    title: str = "",
) -> None:
    """One row of samples per class; small images are magnified without smoothing.

    images: uint8 [K, n, H, W, C] with C = 1 or 3. names: names of the K classes, left of the rows.
    real: uint8 [K, m, H, W, C] real images of the same classes, left of the samples; None = no real
    images. Many classes are placed side by side in columns.
    """
    save(grids.samples(images, names, title, real), path)


def plot_samples_over_tasks(
    images: Sequence[Mapping[int, np.ndarray]],
    names: Sequence[str],
    path: str | Path,
    *,
    headings: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """How the samples of each class look after every task: a row per class, a block per task.

    images: for each task a mapping from label to uint8 [n, H, W, C]. Labels that are not learned
    are missing in it and stay blank. names: names of all labels, in order. headings: one for each
    block; None = "after task 1" and so on.
    """
    save(grids.over_tasks(images, names, headings, title), path)


def _group_curves(figure: Figure, axes: Axes, matrix: np.ndarray, names: Sequence[str] | None):
    """A thin curve for every group of the accuracy matrix, with its name."""
    tasks, groups = np.arange(1, len(matrix) + 1), matrix.shape[1]
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, groups))
    lines = []
    for group, shade in enumerate(shades):
        name = f"task {group + 1}" if names is None else grids.plain(names[group])
        style = {"color": shade, "lw": 1.2, "ms": 3, "alpha": 0.7, "zorder": _BELOW}
        lines += axes.plot(tasks, 100 * matrix[:, group], "-o", label=name, **style)
    _name_groups(figure, lines[:: -(-groups // _NAMED)], "tested on")


def _name_groups(figure: Figure, lines: list, title: str) -> None:
    """Writes the names of the curves beside the chart."""
    legend = figure.legend(
        handles=lines, title=title, frameon=False, fontsize=8, labelcolor=INK,
        loc="outside right upper",
    )  # fmt: skip
    legend.get_title().set(fontsize=8, color=INK, weight="bold")


def _label_ends(
    figure: Figure, axes: Axes, x: float, curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """Writes name and last value of each curve (values in percent, colour) at its end.

    Labels keep their distance, and all of them move as little as possible (least squares).
    """
    with grids.any_script():
        figure.draw_without_rendering()  # places the axes, so their height is known
    points = axes.bbox.height * 72 / figure.dpi / np.ptp(axes.get_ylim())  # of one percent
    ordered = sorted(curves.items(), key=lambda item: item[1][0][-1])
    ends = points * np.array([values[-1] for _, (values, _) in ordered])
    distance = _LABEL * np.arange(len(ends))
    shifts = optimize.isotonic_regression(ends - distance).x + distance - ends
    for (name, (values, colour)), shift in zip(ordered, shifts, strict=True):
        label = grids.plain(reading.shorten(reading.head_name(name), 14))
        text = f"{label} {values[-1]:.1f}".lstrip()
        axes.annotate(
            text, (x, values[-1]), (8, shift), textcoords="offset points", fontsize=_LABEL - 2,
            color=colour, va="center", weight="bold" if colour == MAIN else "normal",
            annotation_clip=False,
        )  # fmt: skip


def _array(matrix) -> np.ndarray:
    nested = isinstance(matrix, list | tuple)
    return accuracy.from_lists(matrix) if nested else np.asarray(matrix, float)


def _smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Running mean over a window of `share` of the curve, narrower at the ends."""
    half = max(1, int(share * len(values)) // 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
