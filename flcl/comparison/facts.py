"""The sentences below a table: what its numbers are, and of which data, seeds and orders."""

from collections.abc import Iterator, Sequence

from flcl.comparison.columns import Column
from flcl.comparison.groups import Group
from flcl.comparison.numbers import LEAST
from flcl.comparison.stored import StoredRun
from flcl.runs.results import GeneratorResults

_PAIRS = 12  # pairs of seed and order that are listed


def sentences(columns: Sequence[Column], groups: Sequence[Group], reference: str) -> Iterator[str]:
    """The sentences, the legend first. reference: the row of the differences."""
    kinds = {column.kind for column in columns}
    units = {column.unit for column in columns}
    in_percent = ", percent" if "percent" in units else ""
    yield f"Mean ± standard deviation (number of runs){in_percent}."
    if "difference" in kinds:
        yield (
            f"Difference: to {reference} with the same seed and order, with its 95 % interval "
            "(Student's t) and the number of pairs; not shown: the interval contains 0, or there "
            f"are fewer than {LEAST} pairs."
        )
    if "error" in kinds:
        yield (
            "Test set: the standard error of one accuracy from the number of test images "
            "(binomial). Runs on the same test images share a part of it."
        )
    runs = [run for group in groups for run in group.runs.values()]
    if any(column.head == "" for column in columns) and runs[0].head:
        yield f"The answers are those of the head {', '.join(_unique(run.head for run in runs))}."
    yield _data(runs)
    yield _machines(runs)


def _data(runs: Sequence[StoredRun]) -> str:
    """Data, tasks and their order."""
    first = next((run for run in runs if not run.joint), runs[0])
    results, data = first.results, first.settings.data
    size = f"{data.image_size}x{data.image_size} pixels"
    what = "domains" if first.domains else f"tasks, {len(results.class_names)} classes"
    text = f"Data: {data.source}, {size}, {len(results.tasks)} {what}, "
    text += f"{sum(results.test_counts):,} test images"
    if isinstance(results, GeneratorResults) and results.sampling:
        sampling = results.sampling
        text += f"; {sampling.solver} with {sampling.function_evaluations} function evaluations"
    return f"{text}; {_repeats(runs)}."


def _repeats(runs: Sequence[StoredRun]) -> str:
    """The seeds and orders: each pair if they are few, or all seeds and all orders."""
    pairs = sorted(_unique((run.settings.seed, run.order) for run in runs))
    seeds, orders = (_unique(pair[i] for pair in pairs) for i in (0, 1))
    if len(pairs) == len(seeds) * len(orders) or len(pairs) > _PAIRS:
        return (
            f"seed{'s' if seeds[1:] else ''} {', '.join(map(str, seeds))}; "
            f"order{'s' if orders[1:] else ''} {'; '.join(orders)}"
        )
    return "seed and order " + ", ".join(f"{seed} {order}" for seed, order in pairs)


def _machines(runs: Sequence[StoredRun]) -> str:
    """Devices and the versions of JAX and flcl."""
    devices = _unique(
        f"{run.timing.get('devices', 1)} x {run.timing['device']}"
        for run in runs
        if run.timing.get("device")
    )
    versions = [
        f"{name} {', '.join(known)}"
        for name in ("flcl", "jax")
        if (known := _unique(r.results.versions[name] for r in runs if name in r.results.versions))
    ]
    return f"Made with {', '.join([*versions, *devices]) or 'unknown versions'}."


def _unique(values) -> list:
    return list(dict.fromkeys(values))
