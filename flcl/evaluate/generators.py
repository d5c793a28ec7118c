"""Evaluation of generators: generates images, trains a judge on them and tests it on real ones."""

import dataclasses
from typing import Protocol

import jax
import numpy as np

from flcl.data.selection import Selection, everything, joined
from flcl.data.stream import Task
from flcl.data.tasks import TaskData
from flcl.devices import hosts, sharding
from flcl.evaluate.features import Progress
from flcl.evaluate.judge import Judge, fidelity, steps_for
from flcl.evaluate.pictures import GENERATED, Pictures, real_images
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Generator
from flcl.rng import stream_key


class JudgeStore(Protocol):
    """Stores the judge that was trained on real images."""

    def save_judge(self, variables) -> None:
        """Stores the variables of the judge."""

    def restore_judge(self, target):
        """The variables of the judge, shaped and placed as `target`; None if none are stored."""


class GeneratorEvaluation:
    """Evaluates the generator of a run. It compiles its judge once.

    sampler: generates the images. store: stores the judge trained on real images; None = every
      process trains this judge again.

    Attributes:
      drawn: the newest samples by label.
    """

    def __init__(
        self,
        method: Generator,
        data: TaskData,
        sampler: ClassSampler,
        mesh,
        progress: Progress,
        store: JudgeStore | None = None,
    ):
        run = method.run
        self.method, self.data, self.judge_settings = method, data, run.judge
        self.drawn: dict[int, np.ndarray] = {}
        self._progress, self._store, self._mesh = progress, store, mesh
        self._sampler = sampler
        self.judge = Judge(
            run.judge,
            data.stream.capacity,
            (run.data.image_size, run.data.image_size, run.data.channels),
            run.seed,
            lambda batch: sharding.place_batch(batch, mesh),
            hosts.rows(run.judge.batch_size),
        )
        # The real training images of all classes, for the judge that gives ceiling and fidelity.
        self._real: dict[int, Selection] = {}
        for group in data.stream.groups:
            self._real |= data.train(group)
        self._real_judge: dict | None = None
        self._ceiling: list[float] | None = None
        self._calls: int | None = None

    def load(self, stored: dict) -> None:
        """Loads the results of an earlier process."""
        self._ceiling = stored["ceiling"]
        self._calls = stored["sampling"]["function_evaluations"]

    @property
    def pictures(self) -> Pictures:
        """The newest samples, and real images of the same classes."""
        return Pictures(self.drawn, real_images(self.data, self.drawn))

    def mend(self, memory, task: Task) -> str:
        """Makes nothing: later tasks need no file of this evaluation."""
        return ""

    def draw(self, memory, task: Task) -> Pictures:
        """The samples that are shown after `task`, from the memory after it, and real images."""
        key, drawn = self._sample_key(), {}
        for label in sorted(self._learned(task)):
            # An image depends on its index and not on their number, so these are the first ones.
            count = min(GENERATED, self.generated_count(label))
            drawn[label] = self._sampler.one_class(memory, key, label, count)[0]
        return Pictures(drawn, real_images(self.data, drawn))

    def plain_count(self, label: int) -> int:
        """Images of a class before oversampling."""
        return self.judge_settings.images_per_class or len(self._real[label])

    def generated_count(self, label: int) -> int:
        """Generated images of a class: `plain_count` times `judge.oversample`."""
        return max(1, round(self.plain_count(label) * self.judge_settings.oversample))

    def samples(self, memory, labels) -> dict[int, np.ndarray]:
        """Generated images by label; if old classes are fixed, each is generated only once."""
        # The old classes have changed too, so their earlier samples are no longer those of the
        # model.
        if not self.method.old_classes_fixed:
            self.drawn = {}
        missing = [label for label in labels if label not in self.drawn]
        advance = self._progress("generating classes", len(missing))
        key = self._sample_key()
        for done, label in enumerate(missing, start=1):
            count = self.generated_count(label)
            self.drawn[label], calls = self._sampler.one_class(memory, key, label, count)
            # dopri5 needs more calls for some classes than for others; the largest number is
            # reported (F9).
            self._calls = max(self._calls or 0, calls)
            advance(done)
        return {label: self.drawn[label] for label in labels}

    def real_judge(self) -> dict:
        """The judge trained on real images; it gives the ceiling and the fidelity."""
        if self._real_judge is None:
            target = sharding.replicated_like(self.judge.abstract_variables(), self._mesh)
            # This judge does not depend on the generator, so a continued run does not train it
            # again.
            stored = self._store.restore_judge(target) if self._store else None
            self._real_judge = stored or self._train(joined(self._real), list(self._real), "real")
            if self._store and stored is None:
                self._store.save_judge(self._real_judge)
            self._ceiling = self._accuracies(self._real_judge, list(self.data.stream.groups))
        return self._real_judge

    def evaluate(self, memory, task: Task) -> dict:
        """The row of the accuracy matrix after `task`, and the fidelity of the samples.

        `accuracy`: for each group learned so far, the mean over judges; `repeats`: the same for
        each judge; `fidelity_per_task` and `fidelity_per_class`: accuracy on the samples of the
        judge trained on real images, per group and by label; `function_evaluations`: network calls
        per image.
        """
        groups = [g for g in self.data.stream.groups if set(g.labels) <= self._learned(task)]
        labels = [label for group in groups for label in group.labels]
        real_judge = self.real_judge()
        drawn = self.samples(memory, labels)
        samples = everything(
            np.concatenate([drawn[label] for label in labels]),
            np.repeat(labels, [len(drawn[label]) for label in labels]),
        )
        # The classification accuracy score: a classifier learns from samples and is tested on
        # real images (F11).
        seen_by_judge = self._training_set(samples, task)
        repeats = []
        # Judges that differ in their seed only: their spread is the noise of one accuracy.
        for repeat in range(self.judge_settings.repeats):
            judge = self._train(seen_by_judge, labels, f"judge/task{task.index}/repeat{repeat}")
            repeats.append(self._accuracies(judge, groups))
        # All classes of the run, also those not learned yet: so the fidelity of a class can be
        # compared between rows.
        all_classes = self._seen(list(self._real))
        recognised = fidelity(
            self.judge, real_judge, samples, [g.labels for g in groups], all_classes
        )
        return {
            "accuracy": np.mean(repeats, axis=0).tolist(),
            "repeats": repeats,
            "fidelity_per_task": recognised["per_task"],
            "fidelity_per_class": {str(k): v for k, v in recognised["per_class"].items()},
            "function_evaluations": self._calls,
        }

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """The entries of `results.json` for a generator, except the accuracy matrix."""
        run, names = self.method.run, self.data.class_names()
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
                "images_per_class": [self.generated_count(label) for label in self._real],
                "oversample": run.judge.oversample,
                "judge_sees_of_newest_task": run.judge.current_task,
            },
            "importance": next((d["importance"] for d in diagnosis if "importance" in d), None),
        }

    def _sample_key(self) -> jax.Array:
        # The same stream after every task: a class that did not change gives the same images, so
        # only the judge can lower its accuracy.
        return stream_key(self.method.run.seed, "samples")

    def _accuracies(self, variables, groups: list[Task]) -> list[float]:
        """Accuracy on the real test images of each group, over all classes of `groups`."""
        seen = self._seen([label for group in groups for label in group.labels])
        accuracies = []
        for group in groups:
            images = self.data.test(group)
            predicted = self.judge.predict(variables, images, seen)
            accuracies.append(float((predicted == images.labels).mean()))
        return accuracies

    def _learned(self, task: Task) -> set[int]:
        tasks = self.data.stream.tasks[: task.index]
        return {label for t in tasks for label in t.labels}

    def _seen(self, labels) -> np.ndarray:
        seen = np.zeros(self.data.stream.capacity, bool)
        seen[list(labels)] = True
        return seen

    def _training_set(self, samples: Selection, task: Task) -> Selection:
        """All samples; with `judge.current_task = real`, the newest task has real images."""
        if self.judge_settings.current_task == "synthetic":
            return samples
        # As in the public code of GUIDE and JDCL. The accuracy cannot be compared with that of a
        # judge that saw only samples.
        old = ~np.isin(samples.labels, task.labels)
        real = joined(self.data.train(task))
        return everything(
            np.concatenate([samples.images[old], real[np.arange(len(real))]]),
            np.concatenate([samples.labels[old], real.labels]),
        )

    def _train(self, images: Selection, labels: list[int], name: str) -> dict:
        """A judge of the classes `labels`; oversampling does not change its number of steps."""
        plain = sum(self.plain_count(label) for label in labels)
        # With oversampling, a judge sees more different images, but it must not also train longer
        # (F10).
        steps = steps_for(self.judge_settings, plain)
        return self.judge.train(
            images, steps=steps, seed_name=name, progress=self._progress("judge", steps)
        )
