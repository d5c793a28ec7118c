"""The common part of all pictures: colours, an empty chart, and writing of complete files.

It uses `Figure` objects and no pyplot, so there is no global state and no display.
"""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from flcl import files
from flcl.report.pictures import grids

INK, SOFT, FAINT = "#1f2933", "#7b8794", "#e4e7eb"
MAIN, CEILING = "#1d4ed8", "#d97706"
OTHERS = ("#0f766e", "#b45309", "#a21caf", "#475569")
"""Colours of curves beside the main one."""
DPI = 150
HEAT = LinearSegmentedColormap.from_list("heat", ["#f4f7fb", "#9dbdf0", "#3266cc", "#12296b"])


def chart(size: tuple[float, float], title: str, grid: bool = True) -> tuple[Figure, Axes]:
    """An empty figure of `size` inches with one pair of axes in the house style."""
    figure = sheet(size)
    axes = figure.add_subplot()
    style(axes, grid)
    if title:
        axes.set_title(grids.plain(title), loc="left", fontsize=10, color=INK, weight="bold")
    return figure, axes


def sheet(size: tuple[float, float], title: str = "") -> Figure:
    """An empty figure of `size` inches for several axes."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    if title:
        figure.suptitle(
            grids.plain(title), x=0.01, ha="left", fontsize=10, color=INK, weight="bold"
        )
    return figure


def style(axes: Axes, grid: bool = True) -> None:
    """Gives axes the style of all pictures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=8, color=SOFT)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    if grid:
        axes.grid(axis="y", color=FAINT, lw=0.8)
        axes.set_axisbelow(True)


def task_ticks(axes: Axes, count: int) -> None:
    """Ticks 1 .. count on the horizontal axis; above 12, only every second one."""
    axes.set_xticks(range(1, count + 1, 1 if count <= 12 else 2))
    axes.set_xlabel("after task")


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure as a PNG, SVG or PDF file by its ending, completely or not at all.

    Equal figures give equal files: no date is in them.
    """
    suffix = Path(path).suffix
    with grids.any_script():
        if suffix == ".png":
            files.write(path, FigureCanvasAgg(figure).print_png)
            return
        dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[suffix]
        with rc_context({"svg.hashsalt": "flcl", "pdf.fonttype": 42}):
            files.write(path, lambda file: figure.savefig(file, format=suffix[1:], metadata=dates))
