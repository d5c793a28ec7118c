"""One self-contained HTML page about a run: no other file and no network is needed to read it."""

import base64
import json
from pathlib import Path

import jinja2

from flcl.report import facts, plots, plots_classifier, reading
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
    environment.filters.update(percent=reading.percent, heat=_heat)
    text = environment.get_template("page.html").render(
        results=results,
        title=reading.title(results),
        real="" if reading.is_classifier(results) else "real ",
        tiles=list(facts.tiles(results)),
        groups=[reading.shorten(name) for name in reading.group_names(results)],
        class_mean=reading.class_mean(results),
        fidelity=reading.overall(results, "fidelity"),
        ceiling=reading.overall(results, "ceiling"),
        drift={reading.DRIFTS.get(k, k): v for k, v in reading.last_drift(results).items()},
        charts=[(caption, _embed(path)) for caption, path in charts if path.stem != "matrix"],
        samples=[
            (path.stem.replace("_", " "), _embed(path))
            for path in sorted((workdir / "samples").glob("*.png"))
        ],
        facts=list(facts.facts(results, _read(workdir / "timing.json") or {})),
    )
    path = workdir / NAME
    temporary = path.with_name(f".{NAME}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def write_plots(workdir: str | Path, results: dict) -> list[tuple[str, Path]]:
    """Draws what there is of a run into `workdir/plots`; captions and paths.

    Accuracy curve, matrix and training loss; of a classifier also drift and chosen ranks.
    """
    workdir = Path(workdir)
    folder, title = workdir / "plots", reading.title(results)
    drawn = []

    def draw(caption: str, name: str, plot, *what, **options) -> None:
        drawn.append((caption, folder / f"{name}.png"))
        plot(*what, drawn[-1][1], title=title, **options)

    if results["matrix"]:
        draw(
            "Accuracy after every task", "accuracy", plots.plot_accuracy_curve,
            results["matrix"], results["test_counts"],
            ceiling=reading.overall(results, "ceiling"),
            class_mean=reading.class_mean(results).get("summary", {}).get("accuracy_per_task"),
            domains=reading.has_domains(results),
        )  # fmt: skip
        domains = reading.group_names(results) if reading.has_domains(results) else None
        matrix = results["matrix"]
        draw("Accuracy matrix", "matrix", plots.plot_matrix, matrix, names=domains)
    records = read_metrics(workdir / "metrics.jsonl")
    draw("Training loss", "loss", plots.plot_training, records)
    if reading.last_drift(results):
        drift, names = results["drift"], reading.group_names(results)
        draw("Drift of the features", "drift", plots_classifier.plot_drift, drift, names)
    selection = results.get("rank_selection") or []
    if any(entry.get("probabilities") for entry in selection):
        plot = plots_classifier.plot_rank_selection
        draw("Rank of every task", "rank_selection", plot, selection)
    return [(caption, path) for caption, path in drawn if path.exists()]


def _heat(value: float | None) -> str:
    """CSS colours of a cell of the matrix: the deeper, the more accurate."""
    if value is None:
        return ""
    light = 97 - 62 * value
    return f"background:hsl(219 70% {light:.0f}%);color:{'#fff' if light < 62 else '#1f2933'}"


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None
