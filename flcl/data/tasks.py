"""A source divided into tasks: the training images and the test images of each task."""

import dataclasses

import numpy as np

from flcl.data.base import Source, Split
from flcl.data.selection import Selection, joined
from flcl.data.stream import Task, TaskStream


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """Images and names of every task.

    Attributes:
      source: the source of the images.
      stream: the classes and domains of each task.
    """

    source: Source
    stream: TaskStream

    def train(self, task: Task) -> dict[int, Selection]:
        """The real training images of a task, by label."""
        return self._by_label(self.source.train, task)

    def test(self, group: Task) -> Selection:
        """The test images of a group."""
        return joined(self._by_label(self.source.test, group))

    def summary(self) -> str:
        """One line about the data: classes, domains, images and tasks."""
        source = self.source
        train, test = (f"{len(split.labels):,}" for split in (source.train, source.test))
        names = ", ".join(source.domain_names)
        domains = f", {len(source.domain_names)} domains ({names})" if names else ""
        count = len(self.stream.tasks)
        tasks = "one joint task" if self.stream.joint else f"{count} task{'s' * (count > 1)}"
        notes = "".join(f"; {note}" for note in source.notes)
        return (
            f"{source.name}: {len(source.class_names)} classes{domains}, {train} training and "
            f"{test} test images, {tasks}{notes}"
        )

    def test_counts(self) -> list[int]:
        """Number of test images of each group."""
        test, groups = self.source.test, self.stream.groups
        return [sum(map(len, self._by_label(test, group).values())) for group in groups]

    def class_names(self) -> list[str]:
        """Class names by label, that is, in class order."""
        return [self.source.class_names[i] for i in self.stream.class_order]

    def group_names(self) -> list[str]:
        """The name of each group: its classes, or its domain."""
        return list(self.stream.names(self.source.class_names, self.source.domain_names))

    def to_dict(self) -> dict:
        """Classes, tasks and image counts as JSON values: the content of `stream.json`.

        `skipped` is there only if `data.bad_images` is "skip", and `split` only if a hash split a
        folder of domains: other runs keep the file of older versions.
        """
        source = self.source
        skipped = source.skipped
        optional = {
            "split": source.split_rule or None,
            "skipped": None if skipped is None else {"count": len(skipped), "files": [*skipped]},
        }
        return {
            # A continued run compares these entries, so it notices images that were added or
            # removed.
            "stream": self.stream.to_dict(),
            "fingerprint": self.stream.fingerprint,
            "class_names": list(source.class_names),
            "domain_names": list(source.domain_names),
            "train_images": np.bincount(source.train.labels).tolist(),
            "test_images": np.bincount(source.test.labels).tolist(),
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _by_label(self, split: Split, task: Task) -> dict[int, Selection]:
        by_label = self.stream.indices(split, task.labels, task.domains)
        return {label: Selection(split.images, indices) for label, indices in by_label.items()}
