"""The order of classes or domains, and their tasks and labels. Needs NumPy only."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from flcl import settings
from flcl.data import base
from flcl.data.sequence import orders


@dataclasses.dataclass(frozen=True)
class Task:
    """One task. `index` counts from 1; `labels` are positions in the class order.

    domains: source domain ids, the positions in `Source.domain_names`; None = all.
    """

    index: int
    labels: tuple[int, ...]
    domains: tuple[int, ...] | None = None


# Room that a new run has from its start. It doubles when more classes or tasks come. A run that
# planned its tasks and one that learned them one by one have the same room in the same task, so
# they run the same programs. These numbers are part of what a run computes.
CLASSES, TASKS, ROWS = 16, 8, 4


def grown(least: int, needed: int) -> int:
    """`least`, doubled until it is at least `needed`."""
    while least < needed:
        least *= 2
    return least


@dataclasses.dataclass(frozen=True)
class TaskStream:
    """Classes and domains in their order of arrival, divided into tasks.

    A *label* is the position of a class in `class_order` (source class ids). In the scenario "cil"
    task 1 has the labels 0..sizes[0]-1, task 2 the next labels, and so on, in all domains; in "dil"
    every task has all labels and one domain of `domain_order` (source domain ids; empty in "cil").
    `sizes` is the number of classes of each task.

    The room of a model: `capacity` rows for classes, `slots` for tasks and `rows` for the classes
    that a later task trains. A stream of a run has the room of its first task, `sized` gives that
    of a later one. slots, rows: 0 = exactly that of the tasks, as in runs of older versions.

    `removed`: the labels of classes that were removed from the run. They keep their places. They
    are no part of `to_dict` and the fingerprint: a removal changes no task.
    """

    scenario: str
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    joint: bool
    capacity: int
    domain_order: tuple[int, ...] = ()
    slots: int = 0
    rows: int = 0
    removed: tuple[int, ...] = ()

    def without(self, class_ids: Sequence[int]) -> "TaskStream":
        """This stream after the removal of the classes with these ids of the source."""
        labels = self.labels_of(np.asarray(class_ids, int)).tolist()
        return dataclasses.replace(self, removed=tuple(sorted({*labels} - {-1})))

    def left(self, labels: Sequence[int]) -> tuple[int, ...]:
        """Those of `labels` whose classes were not removed."""
        return tuple(label for label in labels if label not in self.removed)

    def sized(self, index: int) -> "TaskStream":
        """This stream with the room for the tasks 1 to `index`.

        Old classes and tasks keep their places when it grows.
        """
        known = max(len(task.labels) for task in self.tasks[:index])
        if self.scenario == "cil":
            known = sum(len(task.labels) for task in self.tasks[:index])
        capacity = grown(self.capacity, known)
        return dataclasses.replace(self, capacity=capacity, slots=grown(self.task_slots, index))

    def exact(self) -> "TaskStream":
        """This stream with room for exactly its classes and tasks, as sizes are told."""
        return dataclasses.replace(self, capacity=len(self.class_order), slots=0, rows=0)

    @property
    def task_slots(self) -> int:
        """The number of tasks that a model has room for."""
        return self.slots or len(self.tasks)

    def trained_rows(self, task: Task) -> int:
        """The number of rows of class factors that train in a later task; some may be unused.

        It depends on this task alone, and is the same for most tasks, so they share one program.
        """
        least = self.rows or max((len(each.labels) for each in self.tasks[1:]), default=1)
        return grown(least, len(task.labels))

    def with_task(self, classes: int = 0, domain: int | None = None) -> "TaskStream":
        """This stream with one more task: of `classes` new classes, or of a new domain."""
        # From here on the room is that of the run so far, also in a run of an older version.
        least = max((len(each.labels) for each in self.tasks[1:]), default=ROWS)
        known = len(self.class_order)
        new = {
            "class_order": (*self.class_order, *range(known, known + classes)),
            "sizes": (*self.sizes, classes if domain is None else known),
            "domain_order": self.domain_order if domain is None else (*self.domain_order, domain),
            "slots": self.task_slots,
            "rows": self.rows or least,
        }
        return dataclasses.replace(self, **new)

    def without_newest(self) -> "TaskStream":
        """This stream without its newest task: the inverse of `with_task`, with the room of now."""
        known = len(self.class_order) - (self.sizes[-1] if self.scenario == "cil" else 0)
        new = {"class_order": self.class_order[:known], "domain_order": self.domain_order[:-1]}
        return dataclasses.replace(self, sizes=self.sizes[:-1], **new)

    @functools.cached_property
    def groups(self) -> tuple[Task, ...]:
        """The groups that are evaluated separately: the tasks, even if they are trained jointly."""
        if self.scenario == "dil":
            labels = tuple(range(len(self.class_order)))
            domains = enumerate(self.domain_order, start=1)
            return tuple(Task(number, labels, (domain,)) for number, domain in domains)
        # Labels are positions in the class order, so the classes of a task are always adjacent.
        ends = np.cumsum(self.sizes).tolist()
        return tuple(
            Task(number, tuple(range(end - size, end)))
            for number, (size, end) in enumerate(zip(self.sizes, ends, strict=True), start=1)
        )

    @functools.cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are trained in sequence: the groups, or one task of all if joint."""
        if not self.joint:
            return self.groups
        # One task, but the groups stay, so the joint upper bound is tested like the sequence.
        return (Task(1, tuple(range(len(self.class_order))), self.domain_order or None),)

    def names(self, class_names: Sequence[str], domain_names: Sequence[str]) -> tuple[str, ...]:
        """The name of each group: its domain, or its classes joined by ", ".

        Both arguments are those of `Source`, in the order of the source.
        """
        if self.scenario == "dil":
            return tuple(domain_names[domain] for domain in self.domain_order)
        return tuple(
            ", ".join(class_names[self.class_order[label]] for label in group.labels)
            for group in self.groups
        )

    def labels_of(self, source_ids: np.ndarray) -> np.ndarray:
        """int32 [N] labels of source class ids [N]; -1 for a class that is not in the stream."""
        source_ids = np.asarray(source_ids)
        # The last entry is -1, and every unknown id is sent to it.
        table = np.full(max(self.class_order) + 2, -1, np.int32)
        table[list(self.class_order)] = np.arange(len(self.class_order))
        known = (source_ids >= 0) & (source_ids < len(table) - 1)
        return table[np.where(known, source_ids, len(table) - 1)]

    def indices(
        self, split: base.Split, labels: Sequence[int], domains: Sequence[int] | None = None
    ) -> dict[int, np.ndarray]:
        """For each of `labels`: the ascending positions of its images in `split`.

        domains: source domain ids whose images are included; None = all. A label without images
        has an empty array.
        """
        rows = np.arange(len(split.labels))
        if domains is not None:
            rows = np.flatnonzero(np.isin(split.domains, list(domains)))
        of_images = self.labels_of(split.labels[rows])
        # One stable sort instead of one search per label; stable, so positions stay ascending.
        order = np.argsort(of_images, kind="stable")
        ordered, rows = of_images[order], rows[order]
        return {
            label: rows[np.searchsorted(ordered, label) : np.searchsorted(ordered, label, "right")]
            for label in labels
        }

    def to_dict(self) -> dict:
        """Plain values for JSON; without the entries of `_OPTIONAL` that are empty."""
        values = dataclasses.asdict(self)
        del values["removed"]
        # Older streams keep the fingerprint that they had before there were these entries.
        values = {k: v for k, v in values.items() if v or k not in _OPTIONAL}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> "TaskStream":
        """Inverse of `to_dict`; raises `ValueError` for missing or unknown entries."""
        names = [field.name for field in dataclasses.fields(cls)]
        if {*_OPTIONAL, *values} != set(names):
            wrong = sorted({*_OPTIONAL, *values} ^ set(names))[0]
            raise ValueError(
                f"task stream: entry {wrong!r} is missing or unknown; needed are {', '.join(names)}"
            )
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        # Sorted and without spaces: equal streams always give the same text.
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_OPTIONAL = ("domain_order", "slots", "rows", "removed")


def make_stream(
    stream: settings.ClassStream, source: base.Source, begun: base.Begun | None = None
) -> TaskStream:
    """The task stream of `source` for the settings `stream`.

    begun: the room of a run that has begun; None = it has not begun.

    Raises `ValueError` for an order that is not a permutation of the classes or domains, for tasks
    that do not add up to the number of classes, for "dil" with fewer than two domains, for a
    capacity below the number of classes and for a task without training or test images. A domain
    may lack some classes; DomainNet has such a domain in its official training list. The images of
    a source without any (`base.placeholder`) are not checked.
    """
    count = len(source.class_names)
    order = orders.class_order(stream.class_order, count)
    domains: tuple[int, ...] = ()
    if stream.scenario == "dil":
        domains = _domains(stream, source)
        sizes = (count,) * len(domains)
    else:
        sizes = orders.sizes(stream.tasks, count)
    room = _room(stream) if begun is None or begun.room is None else dict(begun.room)
    room["capacity"] = room["capacity"] or stream.capacity or count
    tasks = TaskStream(stream.scenario, order, sizes, stream.joint, domain_order=domains, **room)
    # A source without any images is only used to compute sizes.
    if len(source.train.labels) or len(source.test.labels):
        _check_groups(tasks, source)
    return tasks


def _room(stream: settings.ClassStream) -> dict[str, int]:
    """`capacity`, `slots` and `rows` of a new run."""
    if stream.joint:  # no task follows
        return dict.fromkeys(("capacity", "slots", "rows"), 0)
    return {"capacity": stream.capacity or CLASSES, "slots": TASKS, "rows": ROWS}


def _domains(stream: settings.ClassStream, source: base.Source) -> tuple[int, ...]:
    names = source.domain_names
    if len(names) < 2:
        have = f"the one domain {names[0]!r}" if names else "no domains"
        raise ValueError(
            f"stream.scenario='dil': {source.name} has {have}, and at least two are needed, such "
            "as folders <domain>/<class>/<image>; or use stream.scenario=cil"
        )
    if stream.tasks.strip() not in ("domains", str(len(names))):
        raise ValueError(
            f"stream.tasks={orders.short(stream.tasks)!r}: with stream.scenario=dil every domain "
            f"is a task, and {source.name} has {len(names)}; use stream.tasks=domains"
        )
    return orders.domain_order(stream.domain_order, names)


def _check_groups(tasks: TaskStream, source: base.Source) -> None:
    names = tasks.names(source.class_names, source.domain_names)
    what = "domain" if tasks.scenario == "dil" else "classes"
    for group, name in zip(tasks.groups, names, strict=True):
        for purpose, split in (("training", source.train), ("test", source.test)):
            rows = tasks.indices(split, group.labels, group.domains).values()
            if not any(map(len, rows)):
                raise ValueError(
                    f"{source.name}: task {group.index} ({what} {orders.short(name)}) has no "
                    f"{purpose} images; add some, or leave them out of the data"
                )
