"""Generators: after every task generate, train the judge on the samples, test it on real images."""

import dataclasses

import numpy as np

from flcl import settings
from flcl.data.stream import Task
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.evaluate.synthetic import Judge, fidelity, steps_for
from flcl.rng import stream_key
from flcl.train.checkpoint import Checkpoints
from flcl.train.features import labelled
from flcl.train.generation import ClassSampler
from flcl.train.setup import Progress, Setup


class GeneratorEvaluation:
    """Judges a run's generator. Compiles its judge and its sampler once.

    checkpoints: where the judge trained on real images is kept; None = it is trained anew.

    Attributes:
      drawn: the newest samples by label.
    """

    def __init__(self, setup: Setup, progress: Progress, checkpoints: Checkpoints | None = None):
        run = setup.run
        self.setup = setup
        self.judge_settings: settings.Judge = run.judge
        self.drawn: dict[int, np.ndarray] = {}
        self._progress = progress
        self._checkpoints = checkpoints
        self._sampler = ClassSampler(setup.method, setup.image_shape, run.sample, setup.mesh)
        self.judge = Judge(
            self.judge_settings,
            setup.stream.capacity,
            setup.image_shape,
            run.seed,
            lambda batch: meshes.place_batch(batch, setup.mesh),
            hosts.rows(self.judge_settings.batch_size),
        )
        self._labels = [label for task in setup.stream.groups for label in task.labels]
        real = setup.stream.indices(setup.source.train, self._labels)
        self._real_counts = {label: len(indices) for label, indices in real.items()}
        self._real: dict | None = None
        self._ceiling: list[float] | None = None
        self._calls: int | None = None

    def load(self, stored: dict) -> None:
        """Takes over what an earlier process found."""
        self._ceiling = stored["ceiling"]
        self._calls = stored["sampling"]["function_evaluations"]

    def plain_count(self, label: int) -> int:
        """Images of a class in the plain-size set."""
        return self.judge_settings.images_per_class or self._real_counts[label]

    def generated_count(self, label: int) -> int:
        """Images generated of a class: the plain size times `judge.oversample`."""
        return max(1, round(self.plain_count(label) * self.judge_settings.oversample))

    def generate(self, memory, label: int, count: int, stream: str = "samples") -> np.ndarray:
        """uint8 [count, H, W, C] of one class from the named random stream."""
        return self._draw(memory, label, count, stream)[0]

    def _draw(self, memory, label: int, count: int, stream: str) -> tuple[np.ndarray, int]:
        key = stream_key(self.setup.run.seed, stream)
        return self._sampler.one_class(memory, key, label, count)

    def samples(self, memory, labels) -> dict[int, np.ndarray]:
        """Generated images by label; those of classes that cannot have changed are drawn once."""
        if not self.setup.method.old_classes_fixed:
            self.drawn = {}
        missing = [label for label in labels if label not in self.drawn]
        advance = self._progress("generating classes", len(missing))
        for done, label in enumerate(missing, start=1):
            count = self.generated_count(label)
            self.drawn[label], calls = self._draw(memory, label, count, "samples")
            self._calls = max(self._calls or 0, calls)
            advance(done)
        return {label: self.drawn[label] for label in labels}

    def real_judge(self) -> dict:
        """The judge trained on real images: the ceiling, and the measure of fidelity."""
        if self._real is None:
            target = meshes.replicated_like(self.judge.abstract_variables(), self.setup.mesh)
            stored = self._checkpoints.restore_judge(target) if self._checkpoints else None
            self._real = stored or self._train_on_real()
            if self._checkpoints and stored is None:
                self._checkpoints.save_judge(self._real)
            self._ceiling = self._accuracies(self._real, list(self.setup.stream.groups))
        return self._real

    def _train_on_real(self) -> dict:
        """Variables of the judge trained on all real images, for as many steps as on samples."""
        split = self.setup.source.train
        by_label = self.setup.stream.indices(split, list(self._real_counts))
        real = labelled(split.images, by_label)
        plain = sum(self.plain_count(label) for label in by_label)
        return self._train(_Chosen(real.images, real.indices), real.labels, plain, "real")

    def _accuracies(self, variables, groups: list[Task]) -> list[float]:
        """Accuracy on the real test images of each group, over all classes of `groups`."""
        split = self.setup.source.test
        seen = self._seen([label for group in groups for label in group.labels])
        found = []
        for group in groups:
            part = labelled(split.images, self.setup.stream.indices(split, group.labels))
            predicted = self.judge.predict(variables, _Chosen(part.images, part.indices), seen)
            found.append(float((predicted == part.labels).mean()))
        return found

    def evaluate(self, memory, task: Task) -> dict:
        """The row of the accuracy matrix after `task`, and the samples' fidelity.

        `accuracy`: per group learned so far, mean over judges; `repeats`: the same for each judge;
        `fidelity_per_task` and `fidelity_per_class`: accuracy of the real-trained judge on the
        samples, per group and by label; `function_evaluations`: network calls per image.
        """
        groups = [g for g in self.setup.stream.groups if set(g.labels) <= self._learned(task)]
        labels = [label for group in groups for label in group.labels]
        real_judge = self.real_judge()
        drawn = self.samples(memory, labels)
        images = np.concatenate([drawn[label] for label in labels])
        truth = np.repeat(labels, [len(drawn[label]) for label in labels])
        train_images, train_labels = self._training_set(images, truth, task)
        plain = sum(self.plain_count(label) for label in labels)
        repeats = []
        for repeat in range(self.judge_settings.repeats):
            name = f"judge/task{task.index}/repeat{repeat}"
            repeats.append(
                self._accuracies(self._train(train_images, train_labels, plain, name), groups)
            )
        everything = self._seen(list(self._real_counts))
        found = fidelity(
            self.judge, real_judge, images, truth, [g.labels for g in groups], everything
        )
        return {
            "accuracy": np.mean(repeats, axis=0).tolist(),
            "repeats": repeats,
            "fidelity_per_task": found["per_task"],
            "fidelity_per_class": {str(k): v for k, v in found["per_class"].items()},
            "function_evaluations": self._calls,
        }

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """What `results.json` says of a generator beside the accuracy matrix."""
        run, names = self.setup.run, self.setup.class_names()
        last = rows[-1] if rows else {"fidelity_per_task": [], "fidelity_per_class": {}}
        return {
            "kind": "generator",
            "ceiling": self._ceiling,
            "fidelity": {
                "matrix": [row["fidelity_per_task"] for row in rows],
                "per_task": last["fidelity_per_task"],
                "per_class": {names[int(k)]: v for k, v in last["fidelity_per_class"].items()},
            },
            "sampling": {
                **dataclasses.asdict(run.sample),
                "function_evaluations": self._calls,
                "images_per_class": [self.generated_count(label) for label in self._labels],
                "oversample": run.judge.oversample,
                "judge_sees_of_newest_task": run.judge.current_task,
            },
            "importance": next((d["importance"] for d in diagnosis if "importance" in d), None),
        }

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
