"""Evaluation of generators: generates images, trains a judge on them and tests it on real ones."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import jax
import numpy as np

from flcl import settings
from flcl.data.selection import Selection, everything, joined
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts, sharding
from flcl.evaluate import own
from flcl.evaluate.features import Progress
from flcl.evaluate.judge import Judge, fidelity, steps_for
from flcl.evaluate.pictures import GENERATED, Pictures, real_images
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Generator
from flcl.metrics import matrix as accuracy_matrix
from flcl.rng import stream_key


class JudgeStore(Protocol):
    """Stores the judge that was trained on real images."""

    def save_judge(self, variables, made_of: dict) -> None:
        """Stores the variables of the judge. made_of: the labels of its classes by origin."""

    def restore_judge(self, target, made_of: dict, unknown: bool):
        """The variables of the judge, shaped and placed as `target`.

        None if no judge of these classes is stored; unknown: whether one counts of which an older
        version did not store the classes.
        """


class GeneratorEvaluation:
    """Evaluates the generator of a run. It compiles its judge once.

    method: that of the newest task. sampler: (task) -> what generates the images after it. store:
      stores the judge trained on real images; None = every process trains this judge again.

    Attributes:
      drawn: the newest samples by label.
    """

    def __init__(
        self,
        method: Generator,
        data: TaskData,
        sampler: Callable[[Task], ClassSampler],
        mesh,
        progress: Progress,
        store: JudgeStore | None = None,
    ):
        run = method.run
        self.method, self.data, self.judge_settings = method, data, run.judge
        self.drawn: dict[int, np.ndarray] = {}
        self._progress, self._store, self._mesh = progress, store, mesh
        self._sampler = sampler
        # The judge of the real images has room for all classes of the run.
        self.judge = self._judge(len(data.stream.tasks))
        self._real_judge: dict | None = None
        self._made_of: dict[str, list[int]] = {}
        self._ceiling: list[float] | None = None
        self._calls: int | None = None

    def _judge(self, tasks: int) -> Judge:
        """A judge with room for the classes of the first `tasks` tasks."""
        run, mesh = self.method.run, self._mesh
        return Judge(
            run.judge,
            self.data.stream.sized(tasks).capacity,
            (run.data.image_size, run.data.image_size, run.data.channels),
            run.seed,
            lambda batch: sharding.place_batch(batch, mesh),
            hosts.rows(run.judge.batch_size),
        )

    def load(self, stored: dict) -> None:
        """Loads the results of an earlier process."""
        self._ceiling = stored["ceiling"]
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
            count = min(GENERATED, self.generated_count(label))
            drawn[label] = self._sampler(task).one_class(memory, key, label, count)[0]
        return Pictures(drawn, real_images(self.data, drawn))

    def plain_count(self, label: int) -> int:
        """Images of a class before oversampling."""
        # A class that was imported has no real images here: it gets as many as the others.
        usual = round(np.mean([count for count in self._counts.values() if count] or [1]))
        return self.judge_settings.images_per_class or self._counts[label] or usual

    def generated_count(self, label: int) -> int:
        """Generated images of a class: `plain_count` times `judge.oversample`."""
        return max(1, round(self.plain_count(label) * self.judge_settings.oversample))

    @functools.cached_property
    def _counts(self) -> dict[int, int]:
        """The number of real training images by label, also if they are not here any more."""
        groups = self.data.stream.groups
        return {
            k: n for g in groups for k, n in zip(g.labels, self.data.images(g).train, strict=True)
        }

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
            count = self.generated_count(label)
            self.drawn[label], calls = sampler.one_class(memory, key, label, count)
            # dopri5 needs more calls for some classes than for others; the largest number is
            # reported (F9).
            self._calls = max(self._calls or 0, calls)
            advance(done)
        return {label: self.drawn[label] for label in labels}

    def real_judge(self) -> dict:
        """The judge trained on real images; it gives the ceiling and the fidelity.

        It knows all classes of the run that were not removed. Classes whose images are not here
        are the newest samples.
        """
        known, groups = self._known, self._groups_here()
        here = {label for group in groups for label in group.labels} & set(known)
        # Of a class that is not learned yet and whose images are gone, there is nothing.
        gone = [label for label in known if label not in here and label in self.drawn]
        # By label: as many other classes would make another judge.
        made_of = {"real": sorted(here), "generated": gone}
        if self._real_judge is None or self._made_of != made_of:
            self._made_of = made_of
            target = sharding.replicated_like(self.judge.abstract_variables(), self._mesh)
            # This judge does not depend on the generator, so a continued run does not train it
            # again.
            stored = None
            if self._store:
                stored = self._store.restore_judge(target, made_of, not self.data.learned)
            if stored is None:
                real = {k: v for group in groups for k, v in self.data.train(group).items()}
                images = {
                    k: real[k] if k in here else everything(self.drawn[k])
                    for k in known
                    if k in here or k in gone
                }
                stored = self._train(self.judge, joined(images), list(images), "real")
                if self._store:
                    self._store.save_judge(stored, made_of)
            self._real_judge = stored
            groups = list(self.data.stream.groups)
            self._ceiling = self._accuracies(self.judge, self._real_judge, groups)
        return self._real_judge

    def evaluate(self, memory, task: Task) -> dict:
        """The row of the accuracy matrix after `task`, and the fidelity of the samples.

        `accuracy`: for each group learned so far, the mean over judges; `repeats`: the same for
        each judge; `fidelity_per_task` and `fidelity_per_class`: accuracy on the samples of the
        judge trained on real images, per group and by label; `fidelity_classes`: the number of
        classes that this judge knows; `function_evaluations`: network calls per image. Numbers of a
        group whose images are not here, or with a class that was removed, are None.
        """
        groups = self._learned_groups(task)
        labels = self.data.stream.left([label for group in groups for label in group.labels])
        if not labels:  # all of them were removed
            return self._nothing(len(groups))
        samples = self._joined_samples(memory, task)
        fidelity_entries = self._fidelity(samples, groups)
        # The classification accuracy score: a classifier learns from samples and is tested on
        # real images (F11).
        seen_by_judge = self._training_set(samples, task)
        judge, repeats = self._judge(task.index), []
        # Judges that differ in their seed only: their spread is the noise of one accuracy.
        for repeat in range(self.judge_settings.repeats):
            name = f"judge/task{task.index}/repeat{repeat}"
            trained = self._train(judge, seen_by_judge, labels, name)
            repeats.append(self._accuracies(judge, trained, groups))
        return {
            "accuracy": _means(repeats),
            "repeats": repeats,
            **fidelity_entries,
            "function_evaluations": self._calls,
            **self._own_classifier(memory, task, groups),
        }

    def _own_classifier(self, memory, task: Task, groups: list[Task]) -> dict:
        """`own_classifier`: the accuracy of each group, if the method has a classifier."""
        method = self._sampler(task).method  # with the room of this task
        if not method.classifies:
            return {}
        return {"own_classifier": own.accuracies(method, memory, self.data, groups, self._mesh)}

    def _nothing(self, groups: int) -> dict:
        """The row after a task of which no class is left, nor of the tasks before it."""
        none = [None] * groups
        return {
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
        same = row.get("fidelity_classes") in (len(self._known), None)
        if same or self.data.stream.removed or not all(map(self.data.here, groups)):
            return row
        return {**row, **self._fidelity(self._joined_samples(memory, task), groups)}

    def _joined_samples(self, memory, task: Task) -> Selection:
        drawn = self.samples(memory, task)
        return everything(
            np.concatenate(list(drawn.values())),
            np.repeat(list(drawn), [len(images) for images in drawn.values()]),
        )

    def _fidelity(self, samples: Selection, groups: list[Task]) -> dict:
        """The entries of a row that the judge of the real images gives."""
        # All classes of the run, also those not learned yet: so the fidelity of a class can be
        # compared between rows.
        real_judge, known = self.real_judge(), len(self._known)
        seen = _marked(self.judge, self._known)
        labels = [group.labels for group in groups]
        recognised = fidelity(self.judge, real_judge, samples, labels, seen)
        here = [self.data.tested(group) for group in groups]
        real = {label for group in self._groups_here() for label in group.labels}
        return {
            "fidelity_per_task": [
                value if kept else None
                for value, kept in zip(recognised["per_task"], here, strict=True)
            ],
            "fidelity_per_class": {
                str(k): v if k in real else None for k, v in recognised["per_class"].items()
            },
            **({"fidelity_classes": known} if not self.data.stream.joint else {}),
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
                **_sampler_keys(run.sample),
                "function_evaluations": self._calls,
                "images_per_class": [self.generated_count(label) for label in self._counts],
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

    def _accuracies(self, judge: Judge, variables, groups: list[Task]) -> list[float | None]:
        """Accuracy on the real test images of each group, over all classes of `groups`."""
        labels = [label for group in groups for label in group.labels]
        seen = _marked(judge, self.data.stream.left(labels))
        accuracies: list[float | None] = []
        for group in groups:
            if not self.data.tested(group):
                accuracies.append(None)
                continue
            images = self.data.test(group)
            predicted = judge.predict(variables, images, seen)
            accuracies.append(float((predicted == images.labels).mean()))
        return accuracies

    def _learned(self, task: Task) -> set[int]:
        tasks = self.data.stream.tasks[: task.index]
        return {label for t in tasks for label in t.labels}

    def _left(self, task: Task) -> list[int]:
        """The labels that are learned after `task` and were not removed, ascending."""
        return sorted(self.data.stream.left(self._learned(task)))

    @functools.cached_property
    def _known(self) -> tuple[int, ...]:
        """The labels of all tasks of the run that were not removed."""
        return self.data.stream.left(self._counts)

    def _learned_groups(self, task: Task) -> list[Task]:
        return [g for g in self.data.stream.groups if set(g.labels) <= self._learned(task)]

    def _groups_here(self) -> list[Task]:
        return [group for group in self.data.stream.groups if self.data.here(group)]

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

    def _train(self, judge: Judge, images: Selection, labels: Sequence[int], name: str) -> dict:
        """A judge of the classes `labels`; oversampling does not change its number of steps."""
        plain = sum(self.plain_count(label) for label in labels)
        # With oversampling, a judge sees more different images, but it must not also train longer
        # (F10).
        steps = steps_for(self.judge_settings, plain)
        return judge.train(
            images, steps=steps, seed_name=name, progress=self._progress("judge", steps)
        )


def _sampler_keys(sample: settings.Sample) -> dict:
    """The keys `sample` for `results.json`, which names guidance only where there is some."""
    keys = dataclasses.asdict(sample)
    return {name: v for name, v in keys.items() if (name, v) != ("guidance", 1.0)}


def _marked(judge: Judge, labels: Iterable[int]) -> np.ndarray:
    """Whether each class of a judge is one of `labels`, bool [classes]."""
    seen = np.zeros(judge.num_classes, bool)
    seen[list(labels)] = True
    return seen


def _means(repeats: list[list[float | None]]) -> list[float | None]:
    """The mean of each column; None where the first row has none."""
    columns = zip(*repeats, strict=True)
    return [None if column[0] is None else float(np.mean(column)) for column in columns]
