"""The numbers on top of the page and the facts below it that make them comparable."""

from collections.abc import Iterator

from flcl.report import reading
from flcl.report.reading import percent


def tiles(results: dict) -> Iterator[tuple[str, str, str]]:
    """(name, number, meaning) of the numbers on top."""
    summary = results.get("summary", {})
    for key, name, meaning in reading.SUMMARY:
        if summary.get(key) is not None:
            yield name, percent(summary[key]), meaning
    if other := reading.class_mean(results):
        yield "class mean", percent(other["summary"]["last_accuracy"]), "the other head, at the end"
    for key, meaning in reading.REFERENCES:
        if (value := reading.overall(results, key)) is not None:
            yield key, percent(value), meaning


def facts(results: dict, timing: dict) -> Iterator[tuple[str, str]]:
    """(name, value) of everything that makes the numbers comparable."""
    yield "scenario", results["scenario"]
    tasks = results["tasks"]
    sizes = sorted({len(task) for task in tasks})
    what = "domains" if reading.has_domains(results) else "tasks"
    yield what, f"{len(tasks)} with {' or '.join(map(str, sizes))} classes each"
    yield "class order (ids in the data set)", ", ".join(map(str, results["class_order"]))
    yield "seed", str(results.get("seed", "unknown"))
    yield "test images per task", _listed(results["test_counts"])
    if "steps_per_task" in results:
        yield "steps per task", _listed(results["steps_per_task"])
    if "head" in results:
        yield "head of the accuracies", results["head"].replace("_", " ")
    yield from _weights(results.get("weights") or {})
    yield from _sampling(results.get("sampling") or {})
    for key, value in results.get("parameters", {}).items():
        if key == "adapted_convolutions":
            yield "adapted convolutions", str(len(value))
        else:
            yield key.replace("_", " "), _listed(value if isinstance(value, list) else [value])
    for key in ("bytes_per_task", "bytes_on_disk"):
        if results.get(key):
            yield key.replace("_", " "), _listed(results[key])
    yield from _timing(timing)
    yield "versions", ", ".join(f"{k} {v}" for k, v in results.get("versions", {}).items())
    yield "classes", ", ".join(map(str, results["class_names"]))


def amount(value) -> str:
    """A number with thousands separated, a word as it is; None is "unknown"."""
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _weights(weights: dict) -> Iterator[tuple[str, str]]:
    """What a classifier's backbone was before the first task."""
    for key, name in (
        ("source", "weights"),
        ("layout", "layout of the weights"),
        ("sha256", "SHA-256 of the weights"),
        ("normalize", "normalisation of the input"),
    ):
        if weights.get(key):
            yield name, str(weights[key])
    if weights.get("ignored"):
        yield "weights that were not used", ", ".join(map(str, weights["ignored"]))


def _sampling(sampling: dict) -> Iterator[tuple[str, str]]:
    """How a generator's images were made."""
    if "solver" in sampling:
        yield "solver", f"{sampling['solver']}, {amount(sampling.get('num_steps'))} steps"
        yield "function evaluations per image", amount(sampling.get("function_evaluations"))
    if "images_per_class" in sampling:
        counts = sampling["images_per_class"]
        counts = sorted(set(counts)) if isinstance(counts, list) else [counts]
        span = " to ".join(map(amount, counts if len(counts) < 3 else (counts[0], counts[-1])))
        yield "generated images per class", span
        yield "oversampling", f"{sampling.get('oversample', 1.0):g} x"
    if "judge_sees_of_newest_task" in sampling:
        seen = sampling["judge_sees_of_newest_task"]
        yield "the judge sees of the newest task", f"{seen} images"


def _timing(timing: dict) -> Iterator[tuple[str, str]]:
    tasks = sorted(timing.get("tasks", {}).items(), key=lambda item: int(item[0]))
    if "device" in timing:
        yield "device", f"{timing.get('devices', 1)} x {timing['device']}"
    for what in ("training_seconds", "evaluation_seconds"):
        if values := [seconds[what] for _, seconds in tasks if what in seconds]:
            yield f"{what.replace('_', ' ')} per task", ", ".join(f"{v:.4g}" for v in values)


def _listed(values: list) -> str:
    return ", ".join(map(amount, values))
