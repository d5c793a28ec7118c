"""The picture of each analysis, from the numbers of its CSV file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from flcl.analysis.frame import Frame, mean_and_deviation
from flcl.report.pictures.canvas import (
    CEILING,
    FAINT,
    HEAT,
    MAIN,
    OTHERS,
    SOFT,
    chart,
    save,
    sheet,
    style,
)

_DASHES = ("-", "--", ":", "-.")


def ranks(data: Frame, functions: int, title: str, path: Path) -> None:
    """Effective rank of every convolution: each class, and the mean; p as a line."""
    figure, axes = chart((7.6, 4.0), title)
    index, values = np.array(data.column("index")), np.array(data.column("effective_rank"))
    axes.plot(index, values, ".", color=SOFT, ms=4, alpha=0.6, label="each class")
    layers = np.unique(index)
    means = [values[index == layer].mean() for layer in layers]
    axes.plot(layers, means, "-o", color=MAIN, lw=1.8, ms=4, label="mean over classes")
    axes.axhline(functions, color=CEILING, lw=1.2, ls="--", label=f"p = {functions}")
    axes.set(xlabel="convolution", ylabel="effective rank of F", ylim=(0, None))
    _legend(axes)
    save(figure, path)


def training_ranks(
    records: list[dict], prefix: str, functions: int, title: str, path: Path
) -> None:
    """Effective rank over the steps of all tasks: each convolution, the mean and the largest.

    records: of `metrics.jsonl`, in their order. prefix: of the names of the convolutions. Dotted
    lines end a task; the dashed one is p.
    """
    figure, axes = chart((8.4, 4.2), title)
    layers = [name for name in records[0] if name.startswith(prefix)]
    start = 0
    for task in sorted({record["task"] for record in records}):
        curve = [record for record in records if record["task"] == task]
        steps = np.array([start + record["step"] for record in curve])
        values = np.array([[record[name] for name in layers] for record in curve])
        labels = ("each convolution", "mean", "largest") if not start else (None,) * 3
        axes.plot(
            steps,
            values,
            color=SOFT,
            lw=0.8,
            alpha=0.5,
            label=[labels[0]] + [None] * (len(layers) - 1),
        )
        axes.plot(steps, [r["mean_rank"] for r in curve], color=MAIN, lw=2, label=labels[1])
        axes.plot(steps, [r["max_rank"] for r in curve], color=OTHERS[0], lw=1.4, label=labels[2])
        start = steps[-1]
        axes.axvline(start, color=FAINT, lw=1, ls=":", zorder=0)
    axes.axhline(functions, color=CEILING, lw=1.2, ls="--", label=f"p = {functions}")
    axes.set(xlabel="steps of all tasks", ylabel="effective rank of F", ylim=(0, None))
    _legend(axes)
    save(figure, path)


def alphas(data: Frame, title: str, path: Path) -> None:
    """Two maps, convolutions x functions: the means of alpha_i and, if they are learned, omega_i.

    Frequencies are shown relative to their start i.
    """
    known = [name for name in ("alpha", "omega") if data.column(name)[0] is not None]
    figure = sheet((4.4 * len(known) + 0.6, 4.6), title)
    layers, count = sorted(set(data.column("index"))), max(data.column("i"))
    for axes, name in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        values = np.array(data.column(name)).reshape(len(layers), count)
        if name == "omega":
            values = values - np.arange(1, count + 1)[None]
        style(axes, grid=False)
        limit = max(np.abs(values - (name == "alpha")).max(), 1e-6)
        centre = float(name == "alpha")
        picture = axes.imshow(
            values, aspect="auto", cmap="RdBu_r", vmin=centre - limit, vmax=centre + limit,
            interpolation="nearest",
        )  # fmt: skip
        axes.set_yticks(_some(len(layers)), [str(layers[k]) for k in _some(len(layers))])
        axes.set_xticks(range(count), [str(k + 1) for k in range(count)])
        axes.set(xlabel="function i", ylabel="convolution")
        axes.set_title("alpha_i" if name == "alpha" else "omega_i - i", fontsize=9)
        figure.colorbar(picture, ax=axes)
    save(figure, path)


def importance(data: Frame, title: str, path: Path) -> None:
    """The score of every adapted convolution; those that `top:K` takes are marked."""
    figure, axes = chart((7.6, 3.8), title)
    index, chosen = np.array(data.column("index")), np.array(data.column("chosen")) > 0
    scores = np.array(data.column("score"))
    # Grey: the window of adapted convolutions; the others have no class factors.
    for number, layer in enumerate(index):
        label = None if number else "adapted"
        axes.axvspan(layer - 0.5, layer + 0.5, color=FAINT, lw=0, label=label, zorder=0)
    axes.bar(index[~chosen], scores[~chosen], color=SOFT, zorder=2)
    label = f"top:{int(chosen.sum())}"
    axes.bar(index[chosen], scores[chosen], color=MAIN, label=label, zorder=2)
    every = data.column("score_of_all_classes")
    axes.plot(index, every, ".", color=CEILING, label="over all classes", zorder=3)
    axes.set(xlabel="convolution", ylabel="importance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    save(figure, path)


def oversampling(data: Frame, title: str, path: Path) -> None:
    """Last accuracy against the factor, with the deviation over seeds."""
    figure, axes = chart((5.4, 3.8), title)
    factors = sorted(set(data.column("oversample")))
    groups = [data.where(oversample=factor).column("accuracy") for factor in factors]
    _curve(axes, factors, groups, 100, color=MAIN, marker="o")
    axes.set(xscale="log", xlabel="samples per class, relative to one", ylabel="last accuracy, %")
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.minorticks_off()
    save(figure, path)


_PANELS = (
    ("accuracy", "accuracy of the judge, %", 100),
    ("fidelity", "fidelity, %", 100),
    ("recall", "recall, %", 100),
    ("fd", "Fréchet distance", 1),
    ("kd", "kernel distance", 1),
)


def evaluations(data: Frame, title: str, path: Path) -> None:
    """A panel for each measure; a curve for each solver, and a dash pattern for each grid."""
    figure = sheet((11.0, 6.4), title)
    panels = figure.subplots(2, 3).ravel()
    ways = list(dict.fromkeys(zip(data.column("solver"), data.column("grid"), strict=True)))
    solvers, grids = (list(dict.fromkeys(each)) for each in zip(*ways, strict=True))
    for axes, (name, label, scale) in zip(panels, _PANELS, strict=False):
        style(axes)
        for solver, grid in ways:
            curve = data.where(solver=solver, grid=grid)
            spent = sorted(set(curve.column("evaluations")))
            groups = [curve.where(evaluations=each).column(name) for each in spent]
            color = (MAIN, *OTHERS)[solvers.index(solver) % 5]
            dash = _DASHES[grids.index(grid) % len(_DASHES)]
            _curve(
                axes, spent, groups, scale,
                color=color, ls=dash, marker=".", label=f"{solver}, {grid}",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="function evaluations", ylabel=label)
        if name == "fd":
            axes.set_yscale("log")  # that of a single step would hide all others
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.tick_params(which="minor", labelsize=8)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 4)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[-1].axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, fontsize=8, frameon=False, loc="center")
    save(figure, path)


def update_ranks(data: Frame, title: str, path: Path) -> None:
    """A map, adapted maps x tasks: the effective rank of the sum of all updates."""
    names, tasks = list(dict.fromkeys(data.column("map"))), sorted(set(data.column("task")))
    values = np.array(data.column("effective_rank")).reshape(len(tasks), len(names)).T
    figure = sheet((3.2 + 0.5 * len(tasks), 1.6 + 0.16 * len(names)), title)
    axes = figure.add_subplot()
    style(axes, grid=False)
    _heat(figure, axes, values)
    axes.set_yticks(_some(len(names)), [names[k] for k in _some(len(names))])
    chosen = [data.where(task=task).column("rank_of_task")[0] for task in tasks]
    labels = [f"{t}\nr = {r}" if r else str(t) for t, r in zip(tasks, chosen, strict=True)]
    axes.set_xticks(range(len(tasks)), labels)
    axes.set_xlabel("after task")
    save(figure, path)


def prompt(data: Frame, title: str, path: Path) -> None:
    """The length of every token after each task."""
    figure, axes = chart((5.4, 3.6), title)
    for token in sorted(set(data.column("token"))):
        curve = data.where(token=token)
        axes.plot(curve.column("task"), curve.column("norm"), "-o", color=SOFT, lw=1, ms=3)
    tasks = sorted(set(data.column("task")))
    means = [np.mean(data.where(task=task).column("norm")) for task in tasks]
    axes.plot(tasks, means, "-o", color=MAIN, lw=2.2, label="mean over tokens")
    axes.set(xlabel="after task", ylabel="length of a token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    save(figure, path)


def _curve(axes: Axes, xs: Sequence, groups: Sequence[list], scale: float, **look) -> None:
    """Means of the groups with a band of one deviation; unknown ones are left out."""
    both = [mean_and_deviation(group) for group in groups]
    known = [(x, m, d or 0.0) for x, (m, d) in zip(xs, both, strict=True) if m is not None]
    if not known:
        return
    xs, means, spread = (np.array(each, float) for each in zip(*known, strict=True))
    axes.plot(xs, scale * means, lw=1.6, ms=5, **look)
    low, high = scale * (means - spread), scale * (means + spread)
    axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, lw=0)


def _heat(figure: Figure, axes: Axes, values: np.ndarray) -> None:
    picture = axes.imshow(values, aspect="auto", cmap=HEAT, vmin=0, interpolation="nearest")
    figure.colorbar(picture, ax=axes)


def _some(count: int, most: int = 20) -> list[int]:
    """Places of ticks: all, or every n-th of many."""
    return list(range(0, count, -(-count // most)))


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, frameon=False)
