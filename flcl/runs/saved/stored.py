"""The JSON files of a run beside its results, typed: every wrong entry is named.

This module needs no JAX.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flcl import files
from flcl.runs import results
from flcl.storage import schema
from flcl.storage.schema import left_out, rest
from flcl.storage.seals import Seals, digest

STREAM, TIMING = "stream.json", "timing.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTasks:
    """`TaskStream` as JSON: see there."""

    scenario: Literal["cil", "dil"]
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    joint: bool
    capacity: int
    domain_order: tuple[int, ...] = left_out(())


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredStream:
    """`stream.json`: the tasks, and what the data has. Counts are by class id of the data set."""

    stream: StoredTasks
    fingerprint: str
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()
    train_images: tuple[int, ...]
    test_images: tuple[int, ...]
    others: Mapping[str, Any] = rest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """`timing.json`: seconds and bytes of each task, by the task's number."""

    device: str = ""
    devices: int = 1
    tasks: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    others: Mapping[str, Any] = rest()


def read_stream(workdir: Path) -> dict | None:
    """The content of `stream.json`, checked; None if there is no file.

    Raises `ValueError` in one line for content that is damaged.
    """
    path = workdir / STREAM
    values = files.read_json(path)
    if values is None and not path.exists():  # and not a file that contains null
        return None
    stored = schema.from_json(StoredStream, values, str(path))
    tasks, classes = stored.stream, len(stored.class_names)
    counts = {"class_order": tasks.class_order, "domain_order": tasks.domain_order}
    names = {"class_order": classes, "domain_order": len(stored.domain_names)}
    for name, order in counts.items():
        # A permutation of all classes; the domains may be some of those that the data has.
        if len(set(order)) < len(order) or not set(order) <= set(range(names[name])):
            raise ValueError(f"{path}: stream.{name} is no order of the {names[name]} names")
    if len(tasks.class_order) != classes:
        raise ValueError(f"{path}: stream.class_order does not have all {classes} classes")
    groups = len(tasks.domain_order) if tasks.scenario == "dil" else classes
    total = len(tasks.sizes) if tasks.scenario == "dil" else sum(tasks.sizes)
    if not tasks.sizes or min(tasks.sizes) < 1 or total != groups or tasks.capacity < classes:
        raise ValueError(
            f"{path}: stream.sizes {list(tasks.sizes)} and stream.capacity {tasks.capacity} do "
            f"not fit its {groups} {'domains' if tasks.scenario == 'dil' else 'classes'}"
        )
    return values


def read_timing(workdir: Path) -> dict:
    """The content of `timing.json`, checked; empty if there is no file.

    Raises `ValueError` in one line for content that is damaged.
    """
    path = workdir / TIMING
    values = files.read_json(path)
    if values is None:
        return {}
    timing = schema.from_json(Timing, values, str(path))
    for name in timing.tasks:
        if not (name.isascii() and name.isdigit() and len(name) < 10):
            raise ValueError(f"{path}: tasks.{name} is not the number of a task")
    return values


def earlier_results(workdir: Path, seals: Seals) -> tuple[dict | None, str]:
    """The content of `results.json` for a run that continues, and what is wrong with it, if any.

    None if there is no file, or one that the run cannot have written.
    """
    path = workdir / results.NAME
    try:
        content = files.read_bytes(path)
        if seals.holds(results.NAME, digest(content)) is False:
            return None, f"{path} has changed since the run wrote it"
        values = files.read_json(path)
        results.from_json(values, str(path))
        return values, ""
    except FileNotFoundError:
        return None, ""
    except ValueError as error:
        return None, str(error)
