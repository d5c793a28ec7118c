"""One self-contained HTML page about a run; it needs no other file and no network."""

import base64
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from flcl import files
from flcl.report import answers, command, facts, html, reading
from flcl.report.kept import BEFORE_AFTER, OVER_TASKS, read_picture, samples_name
from flcl.report.numbers import old_classes, quality
from flcl.report.pictures import plots, plots_classifier
from flcl.report.writers import read_metrics
from flcl.runs.results import NAME as RESULTS
from flcl.runs.results import ClassifierResults, GeneratorResults, Results, from_json
from flcl.runs.saved.stored import read_stream, read_timing, typed_stream
from flcl.settings import formats
from flcl.storage import foreign

NAME = "report.html"


def write_page(workdir: str | Path, results: Results | None = None) -> Path:
    """Writes `report.html` and its charts in `plots/` into the folder of a run; returns its path.

    results: None = read `results.json`. If they exist, the page also uses `config.json`,
    `metrics.jsonl`, `timing.json`, `evaluations/answers.npz` and the pictures in `samples/`. The
    page of an incomplete run shows what is there. Raises `ValueError` if there are no results, or
    if they do not follow their schema.
    """
    workdir = Path(workdir)
    if results is None:
        foreign.check_folder(workdir)
        stored = files.read_json(workdir / RESULTS)
        if stored is None:
            raise ValueError(
                f"{workdir} has no {RESULTS}: the first task is not evaluated yet, or this is not "
                "the folder of a run"
            )
        results = from_json(stored, str(workdir / RESULTS))
    environment = html.environment("flcl.report")
    environment.filters.update(percent=reading.percent, heat=_heat)
    text = environment.get_template("page.html").render(
        **_numbers(results), **_pictures(workdir, results), **_setup(workdir, results)
    )
    return files.write(workdir / NAME, text)


def _numbers(results: Results) -> dict:
    """The values about accuracy that the template of the page needs."""
    generates = isinstance(results, GeneratorResults)
    count = len(results.tasks)
    fidelity = results.fidelity.per_task if generates else ()
    return {
        "results": results,
        "cells": reading.tested(results),
        "gone": reading.gone(results),
        "title": reading.title(results),
        "real": "real " if generates else "",
        "tiles": list(facts.tiles(results)),
        "groups": [reading.shorten(name) for name in reading.group_names(results)],
        "other_heads": [
            (reading.head_name(name), head) for name, head in reading.other_heads(results).items()
        ],
        "whose_answers": reading.whose_answers(results),
        "fidelity": [*fidelity, *[None] * (count - len(fidelity))] if fidelity else [],
        "fidelity_of_classes": results.fidelity.per_class if generates else {},
        "fidelity_of_all": reading.overall(results, "fidelity"),
        "recalls": quality.recalls(results) if fidelity else [],
        "recall_of_all": reading.overall(results, "recall"),
        "recall_of_classes": quality.of_classes(results),
        "likeness": (quality.TITLE, quality.rows(results), list(quality.notes(results))),
        "ceiling": (generates and results.ceiling) or [],
        "ceiling_of_all": reading.overall(results, "ceiling"),
        "above_ceiling": reading.above_ceiling(results),
        "drift": [
            (*reading.DRIFTS[kind].split(", "), row)
            for kind, row in reading.last_drift(results).items()
        ],
        "drift_sentences": reading.drift_sentences(results),
        "diagnosed": [
            (old_classes.name_of(row), row[2:]) for row in old_classes.diagnosed(results)
        ],
        "ranks": reading.ranks(results),
        "diagnosis": (old_classes.TITLE, old_classes.MEANING),
    }


def _pictures(workdir: Path, results: Results) -> dict:
    """Charts, samples and wrong answers, embedded."""
    charts = write_plots(workdir, results)
    kept = answers.read(workdir, len(results.class_names))
    return {
        "charts": [
            (caption, _embed(path.read_bytes()))
            for caption, path in charts
            if path.stem != "matrix"  # the page has it as a table
        ],
        "samples": list(_samples(workdir, results)),
        "mistakes": [] if kept is None else _mistakes(kept, results.class_names),
        "answers_after": kept and kept.task,
        "analyses": sorted(path.name for path in (workdir / "analysis").glob("*.png")),
    }


def _samples(workdir: Path, results: Results) -> Iterator[tuple[str, str]]:
    """Names and embedded pictures of the samples over all tasks and after each."""
    each = range(1, len(results.matrix) + 1)
    # Those of several tasks are drawn again at the end of a run, so a damaged one is no error.
    for caption, name in (("before and after", BEFORE_AFTER), ("over tasks", OVER_TASKS)):
        with contextlib.suppress(FileNotFoundError, ValueError):
            yield caption, _embed(read_picture(workdir, name))
    for name in (samples_name(task, ".png") for task in each):
        with contextlib.suppress(FileNotFoundError):
            yield Path(name).stem.replace("_", " "), _embed(read_picture(workdir, name))


def _setup(workdir: Path, results: Results) -> dict:
    """The settings of the run, and the command that repeats it."""
    config = formats.stored_keys(workdir) or {}
    timing = read_timing(workdir)
    return {
        "later": list(later_tasks(workdir)),
        "facts": list(facts.facts(results, timing, config)),
        "changes": command.changes(config) if config else [],
        "command": command.command(config) if config else "",
    }


def later_tasks(workdir: Path) -> Iterator[tuple[str, ...]]:
    """Number, date, classes or domain, source and changed keys of each task that was not planned.

    A damaged `stream.json` gives none: who opens the run gets the error.
    """
    with contextlib.suppress(ValueError):
        values = read_stream(workdir)
        tasks = typed_stream(values).tasks if values else ()
        for number, task in enumerate(tasks, start=1):
            if task.learned:
                name = task.domain or ", ".join(task.classes)
                changed = ", ".join(f"{k}={v}" for k, v in (task.changed or {}).items()) or "none"
                yield str(number), task.learned, name, task.source, changed


def write_plots(workdir: str | Path, results: Results) -> list[tuple[str, Path]]:
    """Draws the charts of a run into `workdir/plots`; returns captions and paths.

    These are accuracy curve, matrix and training loss; for a classifier also its confusion matrix,
    drift and chosen ranks.
    """
    workdir = Path(workdir)
    folder, title, names = workdir / "plots", reading.title(results), reading.curve_names(results)
    drawn = []

    def draw(caption: str, name: str, plot, *what, **options) -> None:
        drawn.append((caption, folder / f"{name}.png"))
        plot(*what, drawn[-1][1], title=title, **options)

    domains = reading.has_domains(results)
    draw(
        "Accuracy after every task", "accuracy", plots.plot_accuracy_curve,
        results.matrix, results.test_counts,
        ceiling=reading.overall(results, "ceiling"),
        heads={
            name: head.summary.accuracy_per_task
            for name, head in reading.heads(results).items()
        },
        names=names, domains=domains,
    )  # fmt: skip
    groups = reading.group_names(results) if domains else None
    draw("Accuracy matrix", "matrix", plots.plot_matrix, results.matrix, names=groups)
    records = read_metrics(workdir / "metrics.jsonl")
    # A joint run has one task for all groups.
    trained = ["all at once"] if results.scenario.endswith("(joint)") else names
    draw("Training loss", "loss", plots.plot_training, records, names=trained)
    if isinstance(results, ClassifierResults):
        _draw_classifier(draw, workdir, results)
    return [(caption, path) for caption, path in drawn if path.exists()]


def _draw_classifier(draw, workdir: Path, results: ClassifierResults) -> None:
    """Draws the charts that only a classifier has."""
    if (kept := answers.read(workdir, len(results.class_names))) is not None:
        seen = np.flatnonzero(kept.confusion.sum(axis=1))
        names = [results.class_names[label] for label in seen]
        caption = f"Answers after task {kept.task}, {reading.head_name(results.head)} head"
        matrix = kept.confusion[np.ix_(seen, seen)]
        draw(caption, "confusion", plots_classifier.plot_confusion, matrix, names)
    if reading.last_drift(results):
        drift = {"relative": results.drift.relative, "cosine": results.drift.cosine}
        names = reading.curve_names(results)
        draw("Drift of the features", "drift", plots_classifier.plot_drift, drift, names)
    if any(entry.probabilities for entry in results.rank_selection):
        plot = plots_classifier.plot_rank_selection
        draw("Rank of every task", "rank_selection", plot, results.rank_selection)


def _mistakes(kept: answers.KeptAnswers, names: tuple[str, ...]) -> list[dict]:
    """Wrong answers with their images: true class, answer, and number of such images."""
    mistakes = []
    for image, label, answer in zip(kept.images, kept.labels, kept.answers, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
        mistakes.append(
            {
                "picture": _embed(file.getvalue()),
                "label": names[label],
                "answer": names[answer],
                "count": int(kept.confusion[label, answer]),
            }
        )
    return mistakes


def _heat(value: float | None) -> str:
    """CSS colours of a cell of the matrix: a darker cell is more accurate."""
    if value is None:
        return ""
    light = 97 - 62 * value
    return f"background:hsl(219 70% {light:.0f}%);color:{'#fff' if light < 62 else '#1f2933'}"


def _embed(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
