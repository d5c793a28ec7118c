"""After every task: generate, train the judge on the samples, test it on real images."""

import dataclasses
from collections.abc import Callable

import numpy as np

from flcl import settings
from flcl.data.stream import Task
from flcl.evaluate.synthetic import Judge, fidelity, steps_for
from flcl.rng import stream_key
from flcl.train import mesh as meshes
from flcl.train.generation import ClassSampler
from flcl.train.setup import Setup

Progress = Callable[[str, int], Callable[..., None]]


@dataclasses.dataclass
class Row:
    """What one evaluation found.

    Attributes:
      accuracy: per group learned so far, mean over judges.
      repeats: the same for each judge, [repeats, groups].
      fidelity_per_task: accuracy of the real-trained judge on the samples, per group.
      fidelity_per_class: the same by label.
      function_evaluations: network calls per image.
    """

    accuracy: list[float]
    repeats: list[list[float]]
    fidelity_per_task: list[float]
    fidelity_per_class: dict[int, float]
    function_evaluations: int


class Evaluator:
    """Judges a run's generator. Compiles its judge and its sampler once."""

    def __init__(self, setup: Setup, progress: Progress):
        run = setup.run
        self.setup = setup
        self.judge_settings: settings.Judge = run.judge
        self._progress = progress
        self._sampler = ClassSampler(setup.method, setup.image_shape, run.sample, setup.mesh)
        self.judge = Judge(
            self.judge_settings,
            setup.stream.capacity,
            setup.image_shape,
            run.seed,
            lambda batch: meshes.place_batch(batch, setup.mesh),
        )
        labels = [label for task in setup.stream.groups for label in task.labels]
        real = setup.stream.indices(setup.source.train, labels)
        self._real_counts = {label: len(indices) for label, indices in real.items()}
        self.drawn: dict[int, np.ndarray] = {}  # the newest samples by label
        self.function_evaluations = 0

    def plain_count(self, label: int) -> int:
        """Images of a class in the plain-size set."""
        return self.judge_settings.images_per_class or self._real_counts[label]

    def generated_count(self, label: int) -> int:
        """Images generated of a class: the plain size times `judge.oversample`."""
        return max(1, round(self.plain_count(label) * self.judge_settings.oversample))

    def generate(self, memory, label: int, count: int, stream: str = "samples") -> np.ndarray:
        """uint8 [count, H, W, C] of one class from the named random stream."""
        key = stream_key(self.setup.run.seed, stream)
        images, calls = self._sampler.one_class(memory, key, label, count)
        self.function_evaluations = max(self.function_evaluations, calls)
        return images

    def samples(self, memory, labels) -> dict[int, np.ndarray]:
        """Generated images by label; those of classes that cannot have changed are drawn once."""
        if not self.setup.method.old_classes_fixed:
            self.drawn = {}
        missing = [label for label in labels if label not in self.drawn]
        advance = self._progress("generating classes", len(missing))
        for done, label in enumerate(missing, start=1):
            self.drawn[label] = self.generate(memory, label, self.generated_count(label))
            advance(done)
        return {label: self.drawn[label] for label in labels}

    def train_on_real(self) -> dict:
        """Variables of the judge trained on all real images, for as many steps as on samples."""
        split = self.setup.source.train
        by_label = self.setup.stream.indices(split, list(self._real_counts))
        chosen = np.concatenate(list(by_label.values()))
        labels = np.repeat(list(by_label), [len(v) for v in by_label.values()])
        plain = sum(self.plain_count(label) for label in by_label)
        return self._train(_Chosen(split.images, chosen), labels, plain, "real")

    def accuracies(self, variables, groups: list[Task]) -> list[float]:
        """Accuracy on the real test images of each group, over all classes of `groups`."""
        split = self.setup.source.test
        seen = self._seen([label for group in groups for label in group.labels])
        found = []
        for group in groups:
            by_label = self.setup.stream.indices(split, group.labels)
            chosen = np.concatenate(list(by_label.values()))
            truth = np.repeat(list(by_label), [len(v) for v in by_label.values()])
            predicted = self.judge.predict(variables, _Chosen(split.images, chosen), seen)
            found.append(float((predicted == truth).mean()))
        return found

    def evaluate(self, memory, task: Task, real_judge) -> Row:
        """The row of the accuracy matrix after `task`, and the samples' fidelity."""
        groups = [g for g in self.setup.stream.groups if set(g.labels) <= self._learned(task)]
        labels = [label for group in groups for label in group.labels]
        drawn = self.samples(memory, labels)
        images = np.concatenate([drawn[label] for label in labels])
        truth = np.repeat(labels, [len(drawn[label]) for label in labels])
        train_images, train_labels = self._training_set(images, truth, task)
        plain = sum(self.plain_count(label) for label in labels)
        repeats = []
        for repeat in range(self.judge_settings.repeats):
            name = f"judge/task{task.index}/repeat{repeat}"
            repeats.append(
                self.accuracies(self._train(train_images, train_labels, plain, name), groups)
            )
        everything = self._seen(list(self._real_counts))
        found = fidelity(
            self.judge, real_judge, images, truth, [g.labels for g in groups], everything
        )
        return Row(
            accuracy=np.mean(repeats, axis=0).tolist(),
            repeats=repeats,
            fidelity_per_task=found["per_task"],
            fidelity_per_class=found["per_class"],
            function_evaluations=self.function_evaluations,
        )

    def _learned(self, task: Task) -> set[int]:
        tasks = self.setup.stream.tasks[: task.index]
        return {label for t in tasks for label in t.labels}

    def _seen(self, labels) -> np.ndarray:
        seen = np.zeros(self.setup.stream.capacity, bool)
        seen[list(labels)] = True
        return seen

    def _training_set(self, images, labels, task: Task):
        """All samples, or, with `judge.current_task = real`, real images of the newest task."""
        if self.judge_settings.current_task == "synthetic":
            return images, labels
        old = ~np.isin(labels, task.labels)
        pools = self.setup.pools(task)
        real = [np.asarray(pool.images[pool.indices]) for pool in pools.values()]
        real_labels = np.repeat(list(pools), [len(part) for part in real])
        return np.concatenate([images[old], *real]), np.concatenate([labels[old], real_labels])

    def _train(self, images, labels, plain_count: int, name: str) -> dict:
        steps = steps_for(self.judge_settings, plain_count)
        advance = self._progress("judge", steps)
        return self.judge.train(images, labels, steps=steps, seed_name=name, progress=advance)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Some images of a split, decoded when they are asked for."""

    images: object
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which) -> np.ndarray:
        return self.images[self.indices[which]]
