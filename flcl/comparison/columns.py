"""The columns of a table: numbers of a run by name."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from flcl import hints
from flcl.comparison.numbers import error_of_share
from flcl.comparison.stored import StoredRun
from flcl.report import reading
from flcl.runs import results
from flcl.runs.results import ClassifierResults, Summary

Value = Callable[[StoredRun], float | None]

# By name: the heading, and whether it is about what happens over tasks.
SUMMARY = {
    "last_accuracy": ("last", False),
    "average_incremental_accuracy": ("average", True),
    "forgetting": ("forgetting", True),
    "backward_transfer": ("backward transfer", True),
    "last_accuracy_task_mean": ("last, task mean", False),
    "average_incremental_accuracy_task_mean": ("average, task mean", True),
}
DIFFERENCE, ERROR = "difference.", "error."


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      name: as in `--columns`.
      heading: what people read.
      unit: `percent`, `seconds` or `count`.
      value: the number of a run in this unit; None = the run has none.
      head: the head whose answers it is about; empty = that of the method; None = of no head.
      kind: `mean` over runs, `difference` to the reference, or `error` of the test set.
    """

    name: str
    heading: str
    unit: Literal["percent", "seconds", "count"]
    value: Value
    head: str | None = None
    kind: Literal["mean", "difference", "error"] = "mean"


def find(name: str, runs: Sequence[StoredRun]) -> Column:
    """The column of a name; `ValueError` for one that no run has, with those there are.

    Accepted are the names of `usual`; `HEAD.NAME` for a number of `SUMMARY` of another head;
    `difference.NAME`; `error.NAME` of a last accuracy; and the path of a number in results.json,
    such as `parameters.trunk_parameters`.
    """
    if name.startswith(DIFFERENCE):
        column = find(name.removeprefix(DIFFERENCE), runs)
        _check_mean(name, column)
        return dataclasses.replace(
            column, name=name, heading=f"{column.heading}: difference", kind="difference"
        )
    if name.startswith(ERROR):
        return _error(name, runs)
    head, _, key = name.rpartition(".")
    if key in SUMMARY and (not head or any(head in run.heads for run in runs)):
        return _of_summary(name, head, key)
    if name in _OTHERS:
        heading, unit, value = _OTHERS[name]
        return Column(name, heading, unit, value)
    path = name.split(".")
    if any(_number(run, path) is not None for run in runs):
        return Column(name, name, "count", lambda run: _number(run, path))
    known = list(usual(runs))
    raise ValueError(
        f"--columns={hints.quoted(name)}: no run has this number.{hints.did_you_mean(name, known)} "
        f"There are {', '.join(known)}, with difference. or error. before a name, and the path "
        "of a number in results.json"
    )


def usual(runs: Sequence[StoredRun]) -> Iterator[str]:
    """The names of all columns of which some run has a number."""
    names = [*SUMMARY, *_OTHERS]
    heads = dict.fromkeys(head for run in runs for head in run.heads)
    for name in names:
        if any(find(name, runs).value(run) is not None for run in runs):
            yield name
    for head in heads:
        yield from (f"{head}.{key}" for key in ("last_accuracy", "average_incremental_accuracy"))


def default(runs: Sequence[StoredRun], reference: bool) -> list[str]:
    """The columns of a table for which nobody chose any, for a generator or a classifier.

    reference: whether there is a row to compare with.
    """
    known = set(usual(runs))
    first = "last_accuracy"
    more = [f"{DIFFERENCE}{first}", f"{ERROR}{first}"] if reference else []
    if runs[0].head:
        answers = {run.head for run in runs}
        heads = dict.fromkeys(head for run in runs for head in run.heads)
        others = [f"{head}.{first}" for head in heads if answers != {head}]
        rest = ["average_incremental_accuracy", "forgetting", *others, "drift", "seconds"]
    else:
        rest = ["average_incremental_accuracy", "forgetting"]
        # Fidelity says nothing of the diversity: that of class means is 100 %.
        rest += ["fidelity", "recall", "ceiling", "bytes_per_class", "seconds"]
    return [first, *more, *(name for name in rest if name in known)]


def _of_summary(name: str, head: str, key: str) -> Column:
    label, over_tasks = SUMMARY[key]

    def value(run: StoredRun) -> float | None:
        summary = _summary(run, head)
        number = None if summary is None else getattr(summary, key)
        # One evaluation of all classes is no sequence.
        return None if number is None or (over_tasks and run.joint) else 100 * number

    heading = f"{reading.head_name(head)}, {label}" if head else label
    return Column(name, heading, "percent", value, head)


def _summary(run: StoredRun, head: str) -> Summary | None:
    if not head:
        return run.results.summary
    return run.heads[head].summary if head in run.heads else None


def _check_mean(name: str, base: Column) -> None:
    if base.kind != "mean":
        raise ValueError(
            f"--columns={hints.quoted(name)}: difference. or error. stands before the name of a "
            "number, once"
        )


def _error(name: str, runs: Sequence[StoredRun]) -> Column:
    base = find(name.removeprefix(ERROR), runs)
    _check_mean(name, base)
    if not base.name.endswith("last_accuracy") or base.unit != "percent":
        raise ValueError(
            f"--columns={hints.quoted(name)}: the test set gives the error of a last accuracy only"
        )

    def value(run: StoredRun) -> float | None:
        share = base.value(run)
        counts = run.results.summary.images_per_task
        images = counts[-1] if counts else sum(run.results.test_counts)
        return None if share is None or not images else 100 * error_of_share(share / 100, images)

    return dataclasses.replace(
        base, name=name, heading=f"{base.heading}: test set", value=value, kind="error"
    )


def _drift(run: StoredRun) -> float | None:
    """How far features of test images of earlier tasks have moved, in % of their length."""
    if not isinstance(run.results, ClassifierResults) or run.joint:
        return None
    if not run.results.drift.relative:
        return None
    moved = run.results.drift.relative[-1][:-1]
    counts = run.results.test_counts[: len(moved)]
    pairs = [(v, n) for v, n in zip(moved, counts, strict=True) if v is not None]
    total = sum(n for _, n in pairs)
    return 100 * sum(v * n for v, n in pairs) / total if total else None


def _bytes_per_class(run: StoredRun) -> float | None:
    """What a class adds: float32 factors of a generator, statistics of a classifier's heads."""
    if isinstance(run.results, ClassifierResults):
        old = run.results.old_classes
        return None if old is None else old.statistics.per_class
    parameters = _parameters_per_class(run)
    return None if parameters is None else 4 * parameters


def _seconds(*names: str) -> Value:
    def value(run: StoredRun) -> float | None:
        tasks = run.timing.get("tasks", {}).values()
        known = [task[name] for task in tasks for name in names if name in task]
        return sum(known) if known else None

    return value


def _quality(name: str, factor: float = 1.0) -> Value:
    """A number of the samples of all classes beside real test images."""

    def value(run: StoredRun) -> float | None:
        quality = getattr(run.results, "quality", None)
        number = getattr(quality.all, name) if quality and quality.all else None
        return None if number is None else factor * number

    return value


def _own_classifier(run: StoredRun) -> float | None:
    """Last accuracy of the classifier that some generators have; it saw real images."""
    own = getattr(run.results, "own_classifier", None)
    return None if own is None else 100 * own.summary.last_accuracy


def _parameters_per_class(run: StoredRun) -> float | None:
    parameters = run.results.parameters.get("parameters_per_class")
    return parameters if isinstance(parameters, int) else None


def _overall(name: str) -> Value:
    def value(run: StoredRun) -> float | None:
        share = reading.overall(run.results, name)
        return None if share is None else 100 * share

    return value


_SHARES = ("precision", "density", "coverage", "copies")
_TIMES = ("training_seconds", "evaluation_seconds")
_OTHERS: dict[str, tuple[str, Literal["percent", "seconds", "count"], Value]] = {
    "fidelity": ("fidelity", "percent", _overall("fidelity")),
    "recall": ("recall", "percent", _overall("recall")),
    "ceiling": ("ceiling", "percent", _overall("ceiling")),
    "fd": ("FD", "count", _quality("fd")),
    "kd": ("KD", "count", _quality("kd")),
    **{name: (name, "percent", _quality(name, 100.0)) for name in _SHARES},
    "own_classifier": ("own classifier", "percent", _own_classifier),
    "parameters_per_class": ("parameters per class", "count", _parameters_per_class),
    "drift": ("drift", "percent", _drift),
    "bytes_per_class": ("bytes per class", "count", _bytes_per_class),
    "seconds": ("seconds", "seconds", _seconds(*_TIMES)),
    **{name: (name.replace("_", " "), "seconds", _seconds(name)) for name in _TIMES},
}


def _number(run: StoredRun, path: Sequence[str]) -> float | None:
    """The number at a path of results.json; None if there is none."""
    entry = results.to_json(run.results)
    for name in path:
        if isinstance(entry, list) and name.removeprefix("-").isdecimal():
            place = int(name)
            entry = entry[place] if -len(entry) <= place < len(entry) else None
        else:
            entry = entry.get(name) if isinstance(entry, dict) else None
    return entry if isinstance(entry, int | float) and not isinstance(entry, bool) else None
