"""The numbers at the top of the page, and the facts that are needed to compare them."""

from collections.abc import Iterator, Mapping, Sequence

from flcl.report import reading
from flcl.report.numbers import old_classes
from flcl.report.reading import percent
from flcl.runs.results import ClassifierResults, GeneratorResults, Results, Sampling, Weights


def tiles(results: Results) -> Iterator[tuple[str, str, str]]:
    """(name, number, meaning) of the numbers at the top."""
    for key, name, meaning in reading.SUMMARY:
        if (value := getattr(results.summary, key)) is not None:
            yield name, percent(value), meaning
    for name, head in reading.other_heads(results).items():
        accuracy = percent(head.summary.last_accuracy)
        yield reading.head_name(name), accuracy, "another head, after the last task"
    for key, meaning in reading.REFERENCES:
        if (value := reading.overall(results, key)) is not None:
            yield key, percent(value), meaning


def facts(results: Results, timing: Mapping, config: Mapping) -> Iterator[tuple[str, str]]:
    """(name, value) of every fact that is needed to compare the numbers.

    timing, config: contents of `timing.json` and `config.json`; empty if there is no such file.
    """
    yield from _data(config.get("data", {}))
    yield "scenario", results.scenario
    sizes = sorted({len(task) for task in results.tasks})
    what = "domains" if reading.has_domains(results) else "tasks"
    yield what, f"{len(results.tasks)} with {' or '.join(map(str, sizes))} classes each"
    yield "class order (ids in the data set)", ", ".join(map(str, results.class_order))
    yield "seed", "unknown" if results.seed is None else str(results.seed)
    yield "test images per task", _listed(results.test_counts)
    if results.steps_per_task:
        yield "steps per task", _listed(results.steps_per_task)
    if isinstance(results, ClassifierResults):
        yield "head of the accuracies", reading.head_name(results.head)
        yield from _weights(results.weights)
        yield from old_classes.facts(results)
    elif isinstance(results, GeneratorResults) and results.sampling:
        yield from _sampling(results.sampling)
    for key, value in results.parameters.items():
        if key == "adapted_convolutions":
            yield "adapted convolutions", str(len(value))
        elif key == "statistics_bytes" and isinstance(value, Mapping):
            yield "statistics", reading.statistics(value)
        else:
            listed = value if isinstance(value, list | tuple) else [value]
            yield key.replace("_", " "), _listed(listed)
    yield from _timing(timing)
    yield "versions", ", ".join(f"{k} {v}" for k, v in results.versions.items())
    yield "classes", ", ".join(results.class_names)


def amount(value) -> str:
    """A number with a thousands separator, or a word unchanged; None is "unknown"."""
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _data(data: Mapping) -> Iterator[tuple[str, str]]:
    """The source and the size of the images, from the section of `config.json`."""
    if data.get("source"):
        yield "data source", str(data["source"])
    if data.get("image_size"):
        kind = {1: ", grey", 3: ", RGB"}.get(data.get("channels"), "")
        yield "image size", f"{data['image_size']} x {data['image_size']} pixels{kind}"


def _weights(weights: Weights | None) -> Iterator[tuple[str, str]]:
    """The pre-trained weights of a classifier."""
    if weights is None:
        return
    for name, value in (
        ("weights", weights.source),
        ("layout of the weights", weights.layout),
        ("SHA-256 of the weights", weights.sha256),
        ("normalisation of the input", weights.normalize),
    ):
        if value:
            yield name, value
    if weights.ignored:
        yield "weights that were not used", ", ".join(weights.ignored)


def _sampling(sampling: Sampling) -> Iterator[tuple[str, str]]:
    """How the images of a generator were sampled."""
    grid = "" if sampling.grid in (None, "uniform") else f", grid {sampling.grid}"
    yield "solver", f"{sampling.solver}, {amount(sampling.num_steps)} steps{grid}"
    yield "function evaluations per image", amount(sampling.function_evaluations)
    counts = sorted(set(sampling.images_per_class))
    span = " to ".join(map(amount, counts if len(counts) < 3 else (counts[0], counts[-1])))
    yield "generated images per class", span
    yield "oversampling", f"{sampling.oversample:g} x"
    yield "the judge sees of the newest task", f"{sampling.judge_sees_of_newest_task} images"


def _timing(timing: Mapping) -> Iterator[tuple[str, str]]:
    tasks = sorted(timing.get("tasks", {}).items(), key=lambda item: int(item[0]))
    if "device" in timing:
        yield "device", f"{timing.get('devices', 1)} x {timing['device']}"
    for what in ("training_seconds", "evaluation_seconds"):
        if values := [seconds[what] for _, seconds in tasks if what in seconds]:
            yield f"{what.replace('_', ' ')} per task", ", ".join(f"{v:z.4g}" for v in values)


def _listed(values: Sequence) -> str:
    return ", ".join(map(amount, values))
