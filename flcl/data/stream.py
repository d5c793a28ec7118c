"""Which classes arrive when: class order, tasks, label maps. Pure NumPy, and JSON both ways."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np

from flcl import settings
from flcl.data import base


@dataclasses.dataclass(frozen=True)
class Task:
    """`index` counts from 1; `labels` are positions in the class order."""

    index: int
    labels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TaskStream:
    """Classes in their order of arrival, cut into tasks.

    A *label* is the position of a class in `class_order` (source class ids): task 1 owns the
    labels 0..sizes[0]-1, task 2 the next ones, and so on. `capacity` is the number of rows of a
    class bank.
    """

    scenario: str
    class_order: tuple[int, ...]
    sizes: tuple[int, ...]
    joint: bool
    capacity: int

    @functools.cached_property
    def groups(self) -> tuple[Task, ...]:
        """What is evaluated separately: the tasks, also when they are trained jointly."""
        ends = np.cumsum(self.sizes).tolist()
        return tuple(
            Task(number, tuple(range(end - size, end)))
            for number, (size, end) in enumerate(zip(self.sizes, ends, strict=True), start=1)
        )

    @functools.cached_property
    def tasks(self) -> tuple[Task, ...]:
        """What is trained in sequence: the groups, or one task of all labels when joint."""
        return (Task(1, tuple(range(len(self.class_order)))),) if self.joint else self.groups

    def labels_of(self, source_ids: np.ndarray) -> np.ndarray:
        """int32 [N] labels of source class ids [N]; -1 for a class that is not in the stream."""
        source_ids = np.asarray(source_ids)
        table = np.full(max(self.class_order) + 2, -1, np.int32)
        table[list(self.class_order)] = np.arange(len(self.class_order))
        known = (source_ids >= 0) & (source_ids < len(table) - 1)
        return table[np.where(known, source_ids, len(table) - 1)]

    def indices(self, split: base.Split, labels: Sequence[int]) -> dict[int, np.ndarray]:
        """Label -> positions of its images in `split`, ascending, for each of `labels`."""
        of_images = self.labels_of(split.labels)
        order = np.argsort(of_images, kind="stable")
        ordered = of_images[order]
        return {
            label: order[np.searchsorted(ordered, label) : np.searchsorted(ordered, label, "right")]
            for label in labels
        }

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> "TaskStream":
        """Inverse of `to_dict`; raises `ValueError` for missing or unknown entries."""
        names = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(names):
            wrong = sorted(set(values) ^ set(names))[0]
            raise ValueError(
                f"task stream: entry {wrong!r} is missing or unknown; needed are {', '.join(names)}"
            )
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def make_stream(stream: settings.Stream, source: base.Source) -> TaskStream:
    """The stream of `source` that `stream` asks for.

    Raises `ValueError` for a class order that is no permutation of the source's classes, for tasks
    that do not add up to them and for a capacity below their number.
    """
    if stream.scenario != "cil":
        raise ValueError(f"stream.scenario={stream.scenario!r}: accepted is cil")
    count = len(source.class_names)
    order = _class_order(stream.class_order, count)
    sizes = _sizes(stream.tasks, count)
    if stream.capacity != 0 and stream.capacity < count:
        raise ValueError(
            f"stream.capacity={stream.capacity}: more classes than capacity ({source.name} has "
            f"{count}); use 0 or at least {count}"
        )
    return TaskStream(stream.scenario, order, sizes, stream.joint, stream.capacity or count)


def _class_order(text: str, count: int) -> tuple[int, ...]:
    if text == "natural":
        return tuple(range(count))
    if seeded := re.fullmatch(r"seed:(\d+)", text):
        seed = int(seeded[1])
        if seed >= 2**32:
            raise ValueError(f"stream.class_order={text!r}: seeds go up to {2**32 - 1}")
        # What the field's code does after `np.random.seed(N)`; `seed:1993` is its usual order.
        # This generator is frozen by NumPy, so an order never changes with a version.
        return tuple(np.random.RandomState(seed).permutation(count).tolist())
    order = _integers(text)
    if order is None:
        raise ValueError(
            f"stream.class_order={text!r}: accepted are natural, seed:N, or all class ids such "
            "as 3,1,0,2"
        )
    for wrong, what in (
        (sorted({n for n in order if order.count(n) > 1}), "named twice"),
        (sorted({n for n in order if n >= count}), "unknown"),
        (sorted(set(range(count)) - set(order)), "missing"),
    ):
        if wrong:
            raise ValueError(
                f"stream.class_order={_short(text)!r}: class {_listed(wrong)} {what}; each of "
                f"0 to {count - 1} is needed once"
            )
    return tuple(order)


def _sizes(text: str, count: int) -> tuple[int, ...]:
    sizes = _integers(text)
    if sizes is None or 0 in sizes:
        raise ValueError(
            f"stream.tasks={text!r}: accepted are a number of equal tasks such as 5, or the "
            "classes of each task such as 4,2,2,2"
        )
    if len(sizes) > 1:
        if sum(sizes) != count:
            raise ValueError(
                f"stream.tasks={_short(text)!r}: adds up to {sum(sizes)} classes, but the data "
                f"has {count}"
            )
        return tuple(sizes)
    tasks = sizes[0]
    if tasks > count:
        raise ValueError(f"stream.tasks={text!r}: more tasks than classes ({count})")
    if count % tasks:
        uneven = ",".join(str(len(part)) for part in np.array_split(range(count), tasks))
        raise ValueError(
            f"stream.tasks={text!r}: {count} classes do not divide into {tasks} equal tasks; "
            f"name the classes of each task, such as {_short(uneven)}"
        )
    return (count // tasks,) * tasks


def _integers(text: str) -> list[int] | None:
    """Numbers of a list such as `3,1,0`, or None when `text` is not one."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text, re.ASCII):
        return None
    return [int(number) for number in text.split(",")]


def _listed(numbers: list[int]) -> str:
    return _short(", ".join(map(str, numbers)))


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
