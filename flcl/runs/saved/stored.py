"""The JSON files of a run beside its results, typed: every wrong entry is named.

This module needs no JAX.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flcl import files
from flcl.data.sequence.learned import LearnedTask
from flcl.data.sequence.tasks import Counts
from flcl.runs import results
from flcl.storage import schema
from flcl.storage.schema import left_out, rest
from flcl.storage.seals import Seals, digest

STREAM, TIMING = "stream.json", "timing.json"

MOST_ROOM = 1_000_000  # as `stream.capacity`
_MOST_IMAGES = 2**53


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTasks:
    """`TaskStream` as JSON: see there. The file never has `removed`: `removed.json` says that."""

    scenario: Literal["cil", "dil"]
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    joint: bool
    capacity: int
    domain_order: tuple[int, ...] = left_out(())
    slots: int = left_out(0)
    rows: int = left_out(0)
    removed: tuple[int, ...] = left_out(())


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTask:
    """A task, and the source that it owns; counts are in the order of `classes`.

    learned: the date of a task that was not planned; then `changed` has the keys that were changed
    for it, and `domain` the name of its domain. split, skipped: see `Begun`. noise: see
    `LearnedTask`.
    """

    source: str
    classes: tuple[str, ...]
    train_images: tuple[int, ...]
    test_images: tuple[int, ...]
    domain: str = left_out("")
    changed: Mapping[str, Any] | None = left_out()
    learned: str = left_out("")
    noise: tuple[int, ...] | None = left_out()
    others: Mapping[str, Any] = rest()

    @property
    def counts(self) -> Counts:
        """The numbers of images."""
        return Counts(self.train_images, self.test_images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredStream:
    """`stream.json`: the tasks, and what the data has. Counts are by class id of the data set.

    tasks: empty in a run of an older version.
    """

    stream: StoredTasks
    fingerprint: str
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()
    train_images: tuple[int, ...]
    test_images: tuple[int, ...]
    tasks: tuple[StoredTask, ...] = left_out(())
    others: Mapping[str, Any] = rest()

    def counts(self, index: int) -> Counts | None:
        """The numbers of images of a task; None in a run of domains of an older version."""
        if self.tasks:
            return self.tasks[index - 1].counts
        if self.stream.scenario == "dil":
            return None
        first = sum(self.stream.sizes[: index - 1])
        ids = self.stream.class_order[first : first + self.stream.sizes[index - 1]]
        halves = (self.train_images, self.test_images)
        return Counts(*(tuple(half[i] for i in ids) for half in halves))


@dataclasses.dataclass(frozen=True)
class History:
    """What a workdir says of the tasks of its run.

    Attributes:
      stored: its `stream.json`.
      finished: the number of tasks that are stored.
      loaded: later tasks by their number whose images were already read.
    """

    stored: StoredStream
    finished: int
    loaded: Mapping[int, LearnedTask] = dataclasses.field(default_factory=dict)


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
    check_stored(schema.from_json(StoredStream, values, str(path)), str(path))
    return values


def typed_stream(values: Mapping) -> StoredStream:
    """The typed content of a `stream.json` that `read_stream` has checked."""
    return schema.from_json(StoredStream, values, STREAM)


def check_stored(stored: StoredStream, path: str) -> None:
    """Raises `ValueError` for a `stream.json` whose entries do not fit each other."""
    tasks, classes = stored.stream, len(stored.class_names)
    if tasks.removed:
        raise ValueError(f"{path}: stream.removed is unknown; removed.json has removed classes")
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
    room = (tasks.capacity, max(tasks.slots, 1), max(tasks.rows, 1))
    # Room that grows may be smaller at first.
    least = 1 if tasks.slots else classes
    small = tasks.capacity < least or min(room) < 1 or max(room) > MOST_ROOM
    if not tasks.sizes or min(tasks.sizes) < 1 or total != groups or small:
        raise ValueError(
            f"{path}: stream.sizes {list(tasks.sizes)} and stream.capacity {tasks.capacity} do "
            f"not fit its {groups} {'domains' if tasks.scenario == 'dil' else 'classes'}"
        )
    _check_tasks(stored, path)


def _check_tasks(stored: StoredStream, path: str) -> None:
    """Raises `ValueError` for entries of tasks that do not fit the stream."""
    if not stored.tasks:
        return
    sizes = stored.stream.sizes
    if stored.stream.joint:
        sizes = (len(stored.class_names),)
    if len(stored.tasks) != len(sizes):
        raise ValueError(f"{path}: tasks has {len(stored.tasks)} entries, {len(sizes)} are needed")
    planned = [not task.learned for task in stored.tasks]
    if planned != sorted(planned, reverse=True) or not planned[0]:
        raise ValueError(f"{path}: a planned task comes after one that was not planned")
    names = [stored.class_names[class_id] for class_id in stored.stream.class_order]
    dil, end = stored.stream.scenario == "dil", 0
    for number, (task, size) in enumerate(zip(stored.tasks, sizes, strict=True)):
        first, end = (0, size) if dil else (end, end + size)
        lengths = {len(task.train_images), len(task.test_images)}
        if lengths != {size} or [*task.classes] != names[first:end]:
            raise ValueError(f"{path}: tasks[{number}] does not fit the {size} classes of its task")
        if not all(0 <= n <= _MOST_IMAGES for n in (*task.train_images, *task.test_images)):
            raise ValueError(f"{path}: tasks[{number}] has impossible numbers of images")
        noise = task.noise or (0,) * size
        if len(noise) != size or not all(0 <= label < MOST_ROOM for label in noise):
            raise ValueError(f"{path}: tasks[{number}].noise has no label for each of its classes")
        if task.learned:
            _check_added(stored, number, range(first, end), path)


def _check_added(stored: StoredStream, number: int, labels: range, path: str) -> None:
    """Raises `ValueError` unless a task that was not planned came after all that was known."""
    stream, task = stored.stream, stored.tasks[number]
    if stream.scenario == "dil":
        domain = stream.domain_order[number]
        later = len(stored.domain_names) - len(stored.tasks) + number
        fits = domain == later and task.domain == stored.domain_names[domain]
    else:
        fits = not task.domain and [*labels] == [stream.class_order[label] for label in labels]
    if not fits:
        raise ValueError(f"{path}: tasks[{number}] was not planned and is not the next of its run")


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
