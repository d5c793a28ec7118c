"""What a finished classifier shows: drift of its features, ranks of its updates, and its prompt."""

import functools

import numpy as np

from flcl import settings
from flcl.analysis import drawing
from flcl.analysis.frame import Analysis, Frame
from flcl.metrics.ranks import effective_rank, numerical_rank
from flcl.report import reading
from flcl.report.pictures import plots_classifier
from flcl.runs.opened.classifier import ClassifierOnDisk
from flcl.runs.opened.inside import task_updates


def drift(run: ClassifierOnDisk) -> Analysis:
    """How far the features of each group moved after every task, from `results.json`."""
    results, groups = run.results, reading.curve_names(run.results)
    kinds = {"relative": results.drift.relative, "cosine": results.drift.cosine}
    rows = [
        (task, groups[number], moved, results.drift.cosine[task - 1][number])
        for task, row in enumerate(results.drift.relative, start=1)
        for number, moved in enumerate(row)
        if moved is not None
    ]
    data = Frame(("task", "group", "relative", "cosine"), rows)
    title = "Drift of the features of each group since the end of its task"
    draw = functools.partial(_draw_drift, kinds, groups, title)
    note = "relative: |f - f0| / |f0|; cosine: 1 - cos(f, f0); of the same test images."
    return Analysis(title, data, data.where(task=len(results.matrix)), draw, note)


def _draw_drift(kinds: dict, groups: list, title: str, path) -> None:
    plots_classifier.plot_drift(kinds, groups, path, title=title)


def without_drift(run: ClassifierOnDisk) -> str:
    """Why a run has no drift to show; empty if it has some."""
    if run.results is None:
        return "results.json is missing: no task is evaluated yet"
    return "" if reading.last_drift(run.results) else "results.json has no drift of an older group"


def ranks(run: ClassifierOnDisk) -> Analysis:
    """The rank of every task, and the ranks of the sum of all updates in every map.

    A and B are orthonormal, so the ranks of A C B' are those of the core C.
    """
    chosen = {entry.task: entry for entry in (run.results.rank_selection if run.results else ())}
    rows = []
    for update in task_updates(run):
        entry = chosen.get(update.task)
        for name, core in update.cores.items():
            both = float(effective_rank(core)), int(numerical_rank(core, _NOISE))
            rows.append((update.task, name, entry and entry.rank, len(core), *both))
    columns = ("task", "map", "rank_of_task", "columns", "effective_rank", "numerical_rank")
    data = Frame(columns, rows)
    short = Frame(
        ("task", "rank of the task", "complexity H", "p(rank) or held-out loss", "effective rank"),
        [_of_task(data, chosen.get(task), task) for task in sorted(set(data.column("task")))],
    )
    title = "Effective rank of all updates"
    draw = functools.partial(drawing.update_ranks, data, title)
    note = "Effective rank: exp of the entropy of the normalised singular values, mean over maps."
    return Analysis(title, data, short, draw, note)


_NOISE = 1e-5
"""Singular values below this part of the largest one are rounding, in float32."""


def _of_task(data: Frame, entry, task: int) -> tuple:
    maps = data.where(task=task)
    mean = float(np.mean(maps.column("effective_rank")))
    if entry is None:
        return task, None, None, None, mean
    losses = dict(zip(entry.candidates, entry.held_out or (), strict=False))
    known = losses.get(entry.rank) if losses else entry.probability
    return task, entry.rank, entry.complexity, known, mean


def without_updates(run: ClassifierOnDisk) -> str:
    """Why a run has no cores; empty if it has them."""
    if isinstance(run.settings, settings.FMLoRARun):
        return ""
    return f"method={run.settings.method}: no task adds to a core; those of fmlora do"


def prompt(run: ClassifierOnDisk) -> Analysis:
    """The length of every token of the prompt after each task, and how far the prompt moved."""
    rows, before = [], None
    for update in task_updates(run):
        tokens = np.asarray(update.prompt, np.float64)
        moved = np.linalg.norm(tokens - before, axis=1) if before is not None else [None]
        moved = [None if each is None else float(each) for each in moved] * len(tokens)
        norms = np.linalg.norm(tokens, axis=1)
        for number, norm in enumerate(norms):
            rows.append((update.task, number + 1, float(norm), moved[number]))
        before = tokens
    data = Frame(("task", "token", "norm", "moved"), rows)
    short = Frame(
        ("task", "tokens", "mean norm", "mean movement"),
        [_of_prompt(data, task) for task in sorted(set(data.column("task")))],
    )
    title = f"Prompt of {len(tokens)} tokens after every task"
    draw = functools.partial(drawing.prompt, data, title)
    return Analysis(title, data, short, draw, "moved: the distance from the task before.")


def _of_prompt(data: Frame, task: int) -> tuple:
    tokens = data.where(task=task)
    moved = [value for value in tokens.column("moved") if value is not None]
    norms = tokens.column("norm")
    return task, len(norms), float(np.mean(norms)), float(np.mean(moved)) if moved else None


def without_prompt(run: ClassifierOnDisk) -> str:
    """Why a run has no prompt; empty if it has one."""
    if missing := without_updates(run):
        return missing
    return "" if run.settings.prompt.tokens else "prompt.tokens=0: the run has no prompt"
