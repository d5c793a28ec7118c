"""Evaluation of generators: generates images, trains a judge on them and tests it on real ones."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from flcl import settings
from flcl.data.selection import Selection, everything, joined
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.evaluate import own
from flcl.evaluate.features import Progress
from flcl.evaluate.judging import Judging
from flcl.evaluate.pictures import GENERATED, Pictures, real_images
from flcl.evaluate.quality.likeness import Likenesses
from flcl.evaluate.real_judge import JudgeStore, RealJudge
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Generator
from flcl.metrics import matrix as accuracy_matrix
from flcl.rng import stream_key


class GeneratorEvaluation:
    """Evaluates the generator of a run. It compiles its judge once.

    method: that of the newest task. sampler: (task) -> what generates the images after it. store:
      stores the judge trained on real images; None = every process trains this judge again.
    beside: an evaluation of the same run whose judge of the real images, features and metrics are
      used; None = its own.

    Attributes:
      drawn: the newest samples by label.
      real_judge: the judge trained on real images.
    """

    def __init__(
        self,
        method: Generator,
        data: TaskData,
        sampler: Callable[[Task], ClassSampler],
        mesh,
        progress: Progress,
        store: JudgeStore | None = None,
        beside: "GeneratorEvaluation | None" = None,
    ):
        run = method.run
        self.method, self.data, self.judge_settings = method, data, run.judge
        self.drawn: dict[int, np.ndarray] = {}
        self._progress, self._sampler = progress, sampler
        self._judging = Judging(run, data, mesh, progress)
        self.real_judge = beside.real_judge if beside else RealJudge(self._judging, store)
        self._quality = beside._quality if beside else Likenesses(run.judge, data, mesh, progress)
        self._calls: int | None = None

    def load(self, stored: dict) -> None:
        """Loads the results of an earlier process."""
        self.real_judge.ceiling = stored["ceiling"]
        self._calls = stored["sampling"]["function_evaluations"]

    @property
    def pictures(self) -> Pictures:
        """The newest samples, and real images of the same classes that are here."""
        return Pictures(self.drawn, real_images(self.data, self.drawn))

    def mend(self, memory, task: Task) -> str:
        """Makes nothing: later tasks need no file of this evaluation."""
        return ""

    def draw(self, memory, task: Task) -> Pictures:
        """The samples that are shown after `task`, from the memory after it, and real images.

        A class that was removed has none.
        """
        key, drawn = self._sample_key(), {}
        for label in self._left(task):
            # An image depends on its index and not on their number, so these are the first ones.
            count = min(GENERATED, self._judging.generated_count(label))
            drawn[label] = self._sampler(task).one_class(memory, key, label, count)[0]
        return Pictures(drawn, real_images(self.data, drawn))

    def samples(self, memory, task: Task) -> dict[int, np.ndarray]:
        """Images of all classes after `task`; if old classes are fixed, each is made only once.

        A class that was removed has none.
        """
        labels, sampler = self._left(task), self._sampler(task)
        # The old classes have changed too, so their earlier samples are no longer those of the
        # model.
        if not self.method.old_classes_fixed:
            self.drawn = {}
        missing = [label for label in labels if label not in self.drawn]
        advance = self._progress("generating classes", len(missing))
        key = self._sample_key()
        for done, label in enumerate(missing, start=1):
            count = self._judging.generated_count(label)
            self.drawn[label], calls = sampler.one_class(memory, key, label, count)
            # dopri5 needs more calls for some classes than for others; the largest number is
            # reported (F9).
            self._calls = max(self._calls or 0, calls)
            advance(done)
        return {label: self.drawn[label] for label in labels}

    def evaluate(self, memory, task: Task) -> dict:
        """The row of the accuracy matrix after `task`, and the fidelity of the samples.

        `accuracy`: for each group learned so far, the mean over judges; `repeats`: the same for
        each judge; `fidelity_per_task` and `fidelity_per_class`: accuracy on the samples of the
        judge trained on real images, per group and by label; `fidelity_classes`: the number of
        classes that this judge knows; `quality`: see `quality.likeness`; `function_evaluations`:
        network calls per image. Numbers of a group whose images are not here, or with a class that
        was removed, are None.
        """
        groups = self._learned_groups(task)
        labels = self.data.stream.left([label for group in groups for label in group.labels])
        if not labels:  # all of them were removed
            return self._nothing(len(groups))
        samples = self._joined_samples(memory, task)
        beside_real = self._beside_real_images(samples, groups)
        # The classification accuracy score: a classifier learns from samples and is tested on
        # real images (F11).
        seen_by_judge = self._training_set(samples, task)
        judge, repeats = self._judging.judge(task.index), []
        # Judges that differ in their seed only: their spread is the noise of one accuracy.
        for repeat in range(self.judge_settings.repeats):
            name = f"judge/task{task.index}/repeat{repeat}"
            trained = self._judging.train(judge, seen_by_judge, labels, name)
            repeats.append(self._judging.accuracies(judge, trained, groups))
        return {
            "accuracy": _means(repeats),
            "repeats": repeats,
            **beside_real,
            "function_evaluations": self._calls,
            **self._own_classifier(memory, task, groups),
        }

    def _own_classifier(self, memory, task: Task, groups: list[Task]) -> dict:
        """`own_classifier`: the accuracy of each group, if the method has a classifier."""
        method = self._sampler(task).method  # with the room of this task
        if not method.classifies:
            return {}
        return {
            "own_classifier": own.accuracies(method, memory, self.data, groups, self._judging.mesh)
        }

    def _nothing(self, groups: int) -> dict:
        """The row after a task of which no class is left, nor of the tasks before it."""
        none = [None] * groups
        own_classifier = {"own_classifier": none} if self.method.classifies else {}
        return {
            **own_classifier,
            "accuracy": none,
            "repeats": [none] * self.judge_settings.repeats,
            "fidelity_per_task": none,
            "fidelity_per_class": {},
            "function_evaluations": self._calls,
        }

    def updated(self, memory, task: Task, row: dict) -> dict:
        """The row of `task` with the fidelity by a judge of all classes that are known now.

        memory: as it was after `task`. Where images are not here any more, the row stays as it is,
        and so do all rows once a class was removed.
        """
        groups = self._learned_groups(task)
        same = row.get("fidelity_classes") in (len(self._judging.known), None)
        if same or self.data.stream.removed or not all(map(self.data.here, groups)):
            return row
        samples = self._joined_samples(memory, task)
        return {**row, **self._beside_real_images(samples, groups)}

    def _beside_real_images(self, samples: Selection, groups: list[Task]) -> dict:
        """The entries of a row that need the judge of the real images, or their features."""
        judge, drawn = self.real_judge, self.drawn
        # Fidelity alone would praise a generator that repeats one good image.
        return {
            **judge.fidelity(drawn, samples, groups),
            **self._quality.entries(judge.judge, judge.variables(drawn), drawn, groups),
        }

    def _joined_samples(self, memory, task: Task) -> Selection:
        drawn = self.samples(memory, task)
        return everything(
            np.concatenate(list(drawn.values())),
            np.repeat(list(drawn), [len(images) for images in drawn.values()]),
        )

    def sections(self, rows: list[dict], diagnosis: list[dict]) -> dict:
        """The entries of `results.json` for a generator, except the accuracy matrix."""
        run, names = self.method.run, self.data.class_names()
        last = rows[-1] if rows else {"fidelity_per_task": [], "fidelity_per_class": {}}
        return {
            "kind": "generator",
            "ceiling": self.real_judge.ceiling,
            "fidelity": {
                "matrix": [row["fidelity_per_task"] for row in rows],
                "per_task": last["fidelity_per_task"],
                "per_class": {names[int(k)]: v for k, v in last["fidelity_per_class"].items()},
            },
            **_with_names(last.get("quality"), names),
            "sampling": {
                **_sampler_keys(run.sample),
                "function_evaluations": self._calls,
                "images_per_class": [
                    self._judging.generated_count(label) for label in self._judging.counts
                ],
                "oversample": run.judge.oversample,
                "judge_sees_of_newest_task": run.judge.current_task,
            },
            **self._own_results(rows),
            "importance": next((d["importance"] for d in diagnosis if "importance" in d), None),
        }

    def _own_results(self, rows: list[dict]) -> dict:
        """`own_classifier`: its matrix and the numbers that follow from it."""
        if not self.method.classifies:
            return {}
        counts = self.data.test_counts()
        matrix = [accuracy_matrix.filled(row["own_classifier"], len(counts)) for row in rows]
        summary = accuracy_matrix.summary(matrix, counts)
        return {"own_classifier": {"matrix": matrix, "summary": summary}}

    def _sample_key(self) -> jax.Array:
        # The same stream after every task: a class that did not change gives the same images, so
        # only the judge can lower its accuracy.
        return stream_key(self.method.run.seed, "samples")

    def _learned(self, task: Task) -> set[int]:
        tasks = self.data.stream.tasks[: task.index]
        return {label for t in tasks for label in t.labels}

    def _left(self, task: Task) -> list[int]:
        """The labels that are learned after `task` and were not removed, ascending."""
        return sorted(self.data.stream.left(self._learned(task)))

    def _learned_groups(self, task: Task) -> list[Task]:
        return [g for g in self.data.stream.groups if set(g.labels) <= self._learned(task)]

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


def _sampler_keys(sample: settings.Sample) -> dict:
    """The keys `sample` for `results.json`, which names guidance only where there is some."""
    keys = dataclasses.asdict(sample)
    return {name: v for name, v in keys.items() if (name, v) != ("guidance", 1.0)}


def _with_names(quality: dict | None, names: list[str]) -> dict:
    """The quality after the newest task, by the names of classes; empty if none was measured."""
    if quality is None:
        return {}
    named = {names[int(label)]: value for label, value in quality["per_class"].items()}
    return {"quality": {**quality, "per_class": named}}


def _means(repeats: list[list[float | None]]) -> list[float | None]:
    """The mean of each column; None where the first row has none."""
    columns = zip(*repeats, strict=True)
    return [None if column[0] is None else float(np.mean(column)) for column in columns]
