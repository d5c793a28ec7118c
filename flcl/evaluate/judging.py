"""What all judges of a run share: their room, their images, their length and their test."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.data.selection import Selection
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts, sharding
from flcl.evaluate.features import Progress
from flcl.evaluate.judge import Judge, steps_for


class Judging:
    """Makes, trains and tests the judges of a run.

    Attributes:
      run: the settings. data: the images of every task. mesh: the devices.
    """

    def __init__(self, run: settings.GeneratorRun, data: TaskData, mesh: Mesh, progress: Progress):
        self.run, self.data, self.mesh = run, data, mesh
        self._progress = progress

    def judge(self, tasks: int) -> Judge:
        """A judge with room for the classes of the first `tasks` tasks."""
        run, mesh = self.run, self.mesh
        return Judge(
            run.judge,
            self.data.stream.sized(tasks).capacity,
            (run.data.image_size, run.data.image_size, run.data.channels),
            run.seed,
            lambda batch: sharding.place_batch(batch, mesh),
            hosts.rows(run.judge.batch_size),
        )

    def plain_count(self, label: int) -> int:
        """Images of a class before oversampling."""
        # A class that was imported has no real images here: it gets as many as the others.
        usual = round(np.mean([count for count in self.counts.values() if count] or [1]))
        return self.run.judge.images_per_class or self.counts[label] or usual

    def generated_count(self, label: int) -> int:
        """Generated images of a class: `plain_count` times `judge.oversample`."""
        return max(1, round(self.plain_count(label) * self.run.judge.oversample))

    @functools.cached_property
    def counts(self) -> dict[int, int]:
        """The number of real training images by label, also if they are not here any more."""
        groups = self.data.stream.groups
        return {
            k: n for g in groups for k, n in zip(g.labels, self.data.images(g).train, strict=True)
        }

    @functools.cached_property
    def known(self) -> tuple[int, ...]:
        """The labels of all tasks of the run that were not removed."""
        return self.data.stream.left(self.counts)

    def train(self, judge: Judge, images: Selection, labels: Sequence[int], name: str) -> dict:
        """A judge of the classes `labels`; oversampling does not change its number of steps."""
        plain = sum(self.plain_count(label) for label in labels)
        # With oversampling, a judge sees more different images, but it must not also train longer
        # (F10).
        steps = steps_for(self.run.judge, plain)
        return judge.train(
            images, steps=steps, seed_name=name, progress=self._progress("judge", steps)
        )

    def accuracies(self, judge: Judge, variables, groups: list[Task]) -> list[float | None]:
        """Accuracy on the real test images of each group, over all classes of `groups`."""
        labels = [label for group in groups for label in group.labels]
        seen = marked(judge, self.data.stream.left(labels))
        accuracies: list[float | None] = []
        for group in groups:
            if not self.data.tested(group):
                accuracies.append(None)
                continue
            images = self.data.test(group)
            predicted = judge.predict(variables, images, seen)
            accuracies.append(float((predicted == images.labels).mean()))
        return accuracies


def marked(judge: Judge, labels: Iterable[int]) -> np.ndarray:
    """Whether each class of a judge is one of `labels`, bool [classes]."""
    seen = np.zeros(judge.num_classes, bool)
    seen[list(labels)] = True
    return seen
