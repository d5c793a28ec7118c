"""Sources divided into tasks: the training images and the test images of each task."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from flcl.data import digest
from flcl.data.base import Source, Split
from flcl.data.selection import Selection, joined
from flcl.data.sequence.learned import LearnedTask
from flcl.data.sequence.stream import Task, TaskStream


@dataclasses.dataclass(frozen=True)
class Counts:
    """The number of training images and of test images of a task, for each of its labels."""

    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """Images and names of every task. A task owns its source.

    One source is divided into the planned tasks; each task after them has its own one.

    Attributes:
      source: the source of the planned tasks.
      stream: the classes and domains of each task.
      learned: the tasks that were not planned.
      counts: by task number, the images of tasks whose images are not here any more.
      spec: `data.source` of the planned tasks.
    """

    source: Source
    stream: TaskStream
    learned: tuple[LearnedTask, ...] = ()
    counts: Mapping[int, Counts] = dataclasses.field(default_factory=dict)
    spec: str = ""

    @property
    def planned(self) -> int:
        """The number of planned tasks."""
        return len(self.stream.tasks) - len(self.learned)

    @property
    def noise(self) -> dict[int, int]:
        """By label, the label that chooses the noise of an imported class, if it is another one."""
        numbers = {}
        for task, learned in zip(self.stream.tasks[self.planned :], self.learned, strict=True):
            if learned.noise:  # a task that was trained here has none
                numbers |= dict(zip(task.labels, learned.noise, strict=True))
        return {label: number for label, number in numbers.items() if label != number}

    def unplanned(self, task: Task) -> LearnedTask | None:
        """What a task that was not planned has of its own; None for a planned one."""
        # The only task of a joint run has many groups, all of the planned source.
        place = task.index - self.planned - 1
        return self.learned[place] if place >= 0 and not self.stream.joint else None

    def with_task(self, task: LearnedTask, counts: Counts | None = None) -> "TaskData":
        """These tasks and one more. counts: its images, if they are not here."""
        domain = len(self.domain_names) if task.domain_name else None
        stream = self.stream.with_task(len(task.class_names), domain)
        known = {} if counts is None else {len(stream.tasks): counts}
        return dataclasses.replace(
            self,
            stream=stream,
            learned=(*self.learned, task),
            counts={**self.counts, **known},
        )

    def without_newest(self) -> "TaskData":
        """These tasks without the newest one, which was not planned: the inverse of `with_task`."""
        number = len(self.stream.tasks)
        return dataclasses.replace(
            self,
            stream=self.stream.without_newest(),
            learned=self.learned[:-1],
            counts={k: v for k, v in self.counts.items() if k != number},
        )

    def splits(self) -> list[Split]:
        """The training and test images of every source whose images are here."""
        sources = [self.source, *(each.source for each in self.learned)]
        return [half for each in sources if each is not None for half in (each.train, each.test)]

    def here(self, task: Task) -> bool:
        """Whether the images of a task or group are here."""
        return task.index not in self.counts

    def tested(self, group: Task) -> bool:
        """Whether a group can be tested: its images are here, and no class of them was removed.

        Without one of its classes a group would have numbers that mean something else than before.
        """
        if not self.here(group):
            return False
        images, gone = self.images(group), set(self.stream.removed)
        return not any(n and k in gone for k, n in zip(group.labels, images.test, strict=True))

    def train(self, task: Task) -> dict[int, Selection]:
        """The real training images of a task, by label."""
        return self._by_label(self._source(task).train, task)

    def test(self, group: Task) -> Selection:
        """The test images of a group."""
        return joined(self._by_label(self._source(group).test, group))

    def digest(self, task: Task) -> str | None:
        """SHA-256 of the training and test images of a task with their classes, in any order.

        None if they are not here, or not in memory: see `digest.of_set`.
        """
        if not self.here(task):
            return None
        source, names = self._source(task), self.class_names()
        return digest.of_set(
            {
                f"{half} {names[label]}": images
                for half in ("train", "test")
                for label, images in self._by_label(getattr(source, half), task).items()
            }
        )

    def images(self, task: Task) -> Counts:
        """The numbers of images of a task or group, also if they are not here any more."""
        return self._images[task]

    @functools.cached_property
    def _images(self) -> dict[Task, Counts]:
        return {each: self._counted(each) for each in {*self.stream.tasks, *self.stream.groups}}

    def _counted(self, task: Task) -> Counts:
        if not self.here(task):
            return self.counts[task.index]
        source = self._source(task)
        halves = (self._by_label(half, task) for half in (source.train, source.test))
        return Counts(*(tuple(map(len, half.values())) for half in halves))

    def summary(self) -> str:
        """One line about the data: classes, domains, images and tasks."""
        source, stream = self.source, self.stream
        tasks = stream.tasks
        train, test = (
            f"{sum(sum(getattr(self.images(task), half)) for task in tasks):,}"
            for half in ("train", "test")
        )
        names = ", ".join(self.domain_names)
        domains = f", {len(self.domain_names)} domains ({names})" if names else ""
        count = len(tasks)
        told = "one joint task" if stream.joint else f"{count} task{'s' * (count > 1)}"
        if self.learned:
            told += f", {len(self.learned)} of them not planned"
        notes = "".join(f"; {note}" for note in source.notes)
        return (
            f"{source.name}: {len(self.names)} classes{domains}, {train} training and "
            f"{test} test images, {told}{notes}"
        )

    def test_counts(self) -> list[int]:
        """Number of test images of each group."""
        return [sum(self.images(group).test) for group in self.stream.groups]

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class id: those of the planned source first."""
        return (*self.source.class_names, *(n for each in self.learned for n in each.class_names))

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Domain names by domain id: those of the planned source first."""
        new = (each.domain_name for each in self.learned if each.domain_name)
        return (*self.source.domain_names, *new)

    def class_names(self) -> list[str]:
        """Class names by label, that is, in class order."""
        return [self.names[i] for i in self.stream.class_order]

    def group_names(self) -> list[str]:
        """The name of each group: its classes, or its domain."""
        return list(self.stream.names(self.names, self.domain_names))

    def to_dict(self) -> dict:
        """Classes, tasks and image counts as JSON values: the content of `stream.json`.

        `skipped` is there only if `data.bad_images` is "skip", and `split` only if a hash split a
        folder of domains: other runs keep the file of older versions.
        """
        # A continued run compares these entries, so it notices images that were added or removed.
        return {
            "stream": self.stream.to_dict(),
            "fingerprint": self.stream.fingerprint,
            "class_names": list(self.names),
            "domain_names": list(self.domain_names),
            "train_images": self._by_class("train"),
            "test_images": self._by_class("test"),
            **_choice(self.source.split_rule, self.source.skipped),
            "tasks": [self._entry(task) for task in self.stream.tasks],
        }

    def _entry(self, task: Task) -> dict:
        """What `stream.json` says of one task."""
        images, learned, names = self.images(task), self.unplanned(task), self.class_names()
        values = {
            "source": learned.spec if learned else self.spec,
            "classes": [names[label] for label in task.labels],
            "train_images": list(images.train),
            "test_images": list(images.test),
        }
        if learned is None:
            return values
        return {
            **values,
            "domain": learned.domain_name,
            "changed": dict(learned.changed),
            "learned": learned.date,
            **({"noise": list(learned.noise)} if learned.noise else {}),
            **_choice(learned.split_rule, learned.skipped),
        }

    def _by_class(self, half: str) -> list[int]:
        """Images of each class id, over all tasks."""
        counts = np.zeros(len(self.names), int)
        for task in self.stream.tasks:
            ids = [self.stream.class_order[label] for label in task.labels]
            counts[ids] += getattr(self.images(task), half)
        return counts.tolist()

    def _source(self, task: Task) -> Source:
        learned = self.unplanned(task)
        source = learned.source if learned else self.source
        assert source is not None, f"the images of task {task.index} are not here"
        return source

    def _by_label(self, split: Split, task: Task) -> dict[int, Selection]:
        by_label = self.stream.indices(split, task.labels, task.domains)
        return {label: Selection(split.images, indices) for label, indices in by_label.items()}


def _choice(split_rule: str, skipped: tuple[str, ...] | None) -> dict:
    """How a source chose its images, if that is not the usual way."""
    left_out = None if skipped is None else {"count": len(skipped), "files": [*skipped]}
    values = {"split": split_rule or None, "skipped": left_out}
    return {name: value for name, value in values.items() if value is not None}
