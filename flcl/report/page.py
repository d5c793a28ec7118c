"""One self-contained HTML page about a run: no other file and no network is needed to read it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import jinja2

from flcl.report import plots, tables
from flcl.report.writers import read_metrics

NAME = "report.html"


def write_page(workdir: str | Path) -> Path:
    """Writes `report.html`, and its charts into `plots/`, in a run's folder; returns its path.

    Read are `results.json`, and where they exist `metrics.jsonl`, `timing.json` and the pictures in
    `samples/`. A run that is not complete gives a page of what is there. Raises `ValueError` when
    there are no results.
    """
    workdir = Path(workdir)
    results = _read(workdir / "results.json")
    if results is None:
        raise ValueError(
            f"{workdir} has no results.json: the first task is not evaluated yet, or this is not "
            "the folder of a run"
        )
    charts = write_plots(workdir, results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flcl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=tables.percent, heat=_heat, amount=_amount)
    text = environment.get_template("page.html").render(
        results=results,
        title=tables.title(results),
        tiles=list(_tiles(results)),
        fidelity=tables.overall(results, "fidelity"),
        ceiling=tables.overall(results, "ceiling"),
        charts=[(caption, _embed(path)) for caption, path in charts if path.stem != "matrix"],
        samples=[
            (path.stem.replace("_", " "), _embed(path))
            for path in sorted((workdir / "samples").glob("*.png"))
        ],
        facts=list(_facts(results, _read(workdir / "timing.json") or {})),
    )
    path = workdir / NAME
    temporary = path.with_name(f".{NAME}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def write_plots(workdir: str | Path, results: dict) -> list[tuple[str, Path]]:
    """Draws accuracy curve, matrix and training loss into `workdir/plots`; captions and paths."""
    workdir = Path(workdir)
    folder = workdir / "plots"
    title = tables.title(results)
    charts = []
    if results["matrix"]:
        charts = [
            ("Accuracy after every task", folder / "accuracy.png"),
            ("Accuracy matrix", folder / "matrix.png"),
        ]
        ceiling = tables.overall(results, "ceiling")
        plots.plot_accuracy_curve(
            results["matrix"], results["test_counts"], charts[0][1], ceiling=ceiling, title=title
        )
        plots.plot_matrix(results["matrix"], charts[1][1], title=title)
    charts.append(("Training loss", folder / "loss.png"))
    plots.plot_training(read_metrics(workdir / "metrics.jsonl"), charts[-1][1], title=title)
    return [(caption, path) for caption, path in charts if path.exists()]


def _tiles(results: dict) -> Iterator[tuple[str, str, str]]:
    """(name, number, meaning) of the numbers on top."""
    summary = results.get("summary", {})
    for key, name, meaning in tables.SUMMARY:
        if summary.get(key) is not None:
            yield name, tables.percent(summary[key]), meaning
    for key, meaning in tables.REFERENCES:
        if (value := tables.overall(results, key)) is not None:
            yield key, tables.percent(value), meaning


def _facts(results: dict, timing: dict) -> Iterator[tuple[str, str]]:
    """(name, value) of everything that makes the numbers comparable."""
    names, sampling = results["class_names"], results.get("sampling", {})
    yield "scenario", results["scenario"]
    tasks = results["tasks"]
    sizes = sorted({len(task) for task in tasks})
    yield "tasks", f"{len(tasks)} with {' or '.join(map(str, sizes))} classes each"
    yield "class order (ids in the data set)", ", ".join(map(str, results["class_order"]))
    yield "seed", str(results.get("seed", "unknown"))
    yield "test images per task", ", ".join(map(str, results["test_counts"]))
    if "solver" in sampling:
        yield "solver", f"{sampling['solver']}, {_amount(sampling.get('num_steps'))} steps"
        yield "function evaluations per image", _amount(sampling.get("function_evaluations"))
    if "images_per_class" in sampling:
        counts = sampling["images_per_class"]
        counts = sorted(set(counts)) if isinstance(counts, list) else [counts]
        span = " to ".join(map(_amount, counts if len(counts) < 3 else (counts[0], counts[-1])))
        yield "generated images per class", span
        yield "oversampling", f"{sampling.get('oversample', 1.0):g} x"
    if "judge_sees_of_newest_task" in sampling:
        seen = sampling["judge_sees_of_newest_task"]
        yield "the judge sees of the newest task", f"{seen} images"
    for key, value in results.get("parameters", {}).items():
        if key == "adapted_convolutions":
            yield "adapted convolutions", str(len(value))
        else:
            values = value if isinstance(value, list) else [value]
            yield key.replace("_", " "), ", ".join(map(_amount, values))
    for key in ("bytes_per_task", "bytes_on_disk"):
        if results.get(key):
            yield key.replace("_", " "), ", ".join(map(_amount, results[key]))
    yield from _timing(timing)
    yield "versions", ", ".join(f"{k} {v}" for k, v in results.get("versions", {}).items())
    yield "classes", ", ".join(map(str, names))


def _timing(timing: dict) -> Iterator[tuple[str, str]]:
    tasks = sorted(timing.get("tasks", {}).items(), key=lambda item: int(item[0]))
    if "device" in timing:
        yield "device", f"{timing.get('devices', 1)} x {timing['device']}"
    for what in ("training_seconds", "evaluation_seconds"):
        if values := [seconds[what] for _, seconds in tasks if what in seconds]:
            yield f"{what.replace('_', ' ')} per task", ", ".join(f"{v:.4g}" for v in values)


def _heat(value: float | None) -> str:
    """CSS colours of a cell of the matrix: the deeper, the more accurate."""
    if value is None:
        return ""
    light = 97 - 62 * value
    return f"background:hsl(219 70% {light:.0f}%);color:{'#fff' if light < 62 else '#1f2933'}"


def _amount(value) -> str:
    """A number with thousands separated; None is "unknown"."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None
