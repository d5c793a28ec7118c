"""Pictures of a run. Each `plot_*` writes one PNG whole or not at all.

Only `Figure` objects are used, no pyplot: there is no global state and no display.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from flcl.evaluate import matrix as accuracy
from flcl.report import grids

INK, SOFT, FAINT = "#1f2933", "#7b8794", "#e4e7eb"
MAIN, CEILING = "#1d4ed8", "#d97706"
DPI = 150
_REAL = "the same judge trained on real images"
_HEAT = LinearSegmentedColormap.from_list("heat", ["#f4f7fb", "#9dbdf0", "#3266cc", "#12296b"])


def plot_accuracy_curve(
    matrix: Sequence,
    counts: Sequence[int],
    path: str | Path,
    *,
    ceiling: float | None = None,
    title: str = "",
) -> None:
    """Accuracy on all classes learned so far, and on each group, after every task.

    matrix [T, G] and counts [G] as in `evaluate.matrix` (nested lists with None are taken too);
    ceiling: accuracy of the judge trained on real images, drawn as a dashed line.
    """
    matrix = accuracy.from_lists(accuracy.to_lists(_array(matrix)))
    tasks = np.arange(1, len(matrix) + 1)
    figure, axes = _chart((6.4, 4.0), title)
    for group in range(matrix.shape[1]):
        values = 100 * matrix[:, group]
        label = "each task's own classes" if group == 0 else None
        axes.plot(tasks, values, "-o", color="#9db8e8", lw=1, ms=3, label=label, zorder=2)
    curve = 100 * accuracy.accuracy_per_task(matrix, np.asarray(counts))
    axes.plot(tasks, curve, "-o", color=MAIN, lw=2.4, ms=6, label="all learned classes", zorder=3)
    axes.annotate(
        f"{curve[-1]:.1f}", (tasks[-1], curve[-1]), (8, 0), textcoords="offset points",
        color=MAIN, va="center", weight="bold", annotation_clip=False,
    )  # fmt: skip
    lowest = np.nanmin(100 * matrix)
    if ceiling is not None:
        dashes = (0, (5, 3))
        axes.axhline(100 * ceiling, color=CEILING, lw=1.4, ls=dashes, label=_REAL, zorder=1)
        lowest = min(lowest, 100 * ceiling)
    axes.set_xlim(0.8, max(len(matrix), 2) + 0.2)
    axes.set_ylim(max(0, 10 * np.floor((lowest - 5) / 10)), 101)
    axes.set_xticks(tasks if len(tasks) <= 12 else tasks[::2])
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("after task")
    axes.set_ylabel("accuracy on real test images, %")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower left")
    save(figure, path)


def plot_matrix(
    matrix: Sequence,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Heat map of the accuracy matrix [T, G] in percent; groups not learned yet stay empty.

    names: of the groups, shown on the horizontal axis; None = their numbers.
    """
    matrix = _array(matrix)
    rows, columns = matrix.shape
    cell = 0.62 if columns <= 12 else 0.46
    labels = [str(j) for j in range(1, columns + 1)] if names is None else names
    shown = [grids.shorten(grids.plain(str(name)), 14) for name in labels]
    turned = max(map(len, shown)) > 5
    size = (max(3.2, 1.2 + cell * columns), 1.2 + cell * rows + (0.6 if turned else 0))
    figure, axes = _chart(size, title, grid=False)
    colours = _HEAT.with_extremes(bad="#ffffff")
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


def plot_training(records: Sequence[dict], path: str | Path, *, title: str = "") -> None:
    """Training loss over the steps of each task, from the records of `metrics.jsonl`.

    Records without a loss are left out; nothing is written when none has one.
    """
    curves: dict[int, list[tuple[int, float]]] = {}
    for record in records:
        if record.get("loss") is not None and str(record["phase"]).startswith("phase"):
            curves.setdefault(record["task"], []).append((record["step"], record["loss"]))
    if not curves:
        return
    figure, axes = _chart((6.4, 4.0), title)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(curves)))
    for shade, (task, points) in zip(shades, sorted(curves.items()), strict=True):
        steps, losses = np.array(sorted(points)).T
        axes.plot(steps, losses, color=shade, lw=0.8, alpha=0.3 if len(steps) >= 20 else 1)
        if len(steps) >= 20:
            axes.plot(steps, _smooth(losses), color=shade, lw=1.8)
        axes.plot([], [], color=shade, lw=1.8, label=f"task {task}")
    if any(loss > 0 for points in curves.values() for _, loss in points):
        axes.set_yscale("log")
        # A narrow range would hold no power of ten: round values instead.
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step of the task")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=1 + len(curves) // 8)
    save(figure, path)


def plot_samples(
    images: np.ndarray, names: Sequence[str], path: str | Path, *, title: str = ""
) -> None:
    """One row of samples per class, small images magnified without smoothing.

    images: uint8 [K, n, H, W, C] with C = 1 or 3; names: of the K classes, written before the rows.
    Many classes are set side by side in columns.
    """
    save(grids.samples(images, names, title), path)


def plot_samples_over_tasks(
    images: Sequence[Mapping[int, np.ndarray]],
    names: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
) -> None:
    """How the samples of each class look after every task: a row per class, a block per task.

    images: one mapping per task from the label to uint8 [n, H, W, C]; labels that a task had not
    learned are absent and stay blank. names: of all labels, in order.
    """
    save(grids.over_tasks(images, names, title), path)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure as PNG under a temporary name first, so that no reader sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with grids.any_script():
        FigureCanvasAgg(figure).print_png(temporary)
    temporary.replace(path)


def _chart(size: tuple[float, float], title: str, grid: bool = True):
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=8, color=SOFT)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    if title:
        axes.set_title(grids.plain(title), loc="left", fontsize=10, color=INK, weight="bold")
    if grid:
        axes.grid(axis="y", color=FAINT, lw=0.8)
        axes.set_axisbelow(True)
    return figure, axes


def _array(matrix) -> np.ndarray:
    return accuracy.from_lists(matrix) if isinstance(matrix, list) else np.asarray(matrix, float)


def _smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Running mean over a window of `share` of the curve, narrower at the ends."""
    half = max(1, int(share * len(values)) // 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
