"""A generator on disk: it samples the classes it learned and is evaluated with other settings."""

import functools
import numbers
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flcl import hints, settings
from flcl.adapters.artifact import ClassFile
from flcl.data.stream import Task
from flcl.evaluate.features import silent
from flcl.evaluate.generators import GeneratorEvaluation
from flcl.evaluate.sampling import ClassSampler
from flcl.rng import stream_key
from flcl.runs import room
from flcl.runs.opened import classes as class_files
from flcl.runs.opened import run as opened
from flcl.runs.results import GeneratorResults
from flcl.runs.setup import Setup
from flcl.settings.ids import resolve, separated


class Samples(NamedTuple):
    """Generated images.

    Attributes:
      images: uint8 [K, n, H, W, C].
      classes: class ids of the data set, [K].
      names: the names of the classes, [K].
      function_evaluations: network calls per image.
    """

    images: np.ndarray
    classes: tuple[int, ...]
    names: tuple[str, ...]
    function_evaluations: int


class GeneratorOnDisk(opened.Run):
    """A finished or interrupted run of a generator; see `opened.Run` for its attributes."""

    kind = "generator"
    settings: settings.GeneratorRun

    @property
    def results(self) -> GeneratorResults | None:
        """What `results.json` holds now; see `opened.Run.results`."""
        return typing.cast(GeneratorResults | None, super().results)

    def __init__(self, workdir: str | Path, **options):
        super().__init__(workdir, **options)
        setup = self._setup
        # A compiled sampler for each combination of solver, steps and chunk.
        self._sampler = functools.cache(
            lambda sample, task: ClassSampler(setup.of_task(task).method, sample, setup.mesh)
        )

    def sample(
        self,
        classes: Sequence[int | str] | int | str | None = None,
        per_class: int = 16,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        task: int | None = None,
    ) -> Samples:
        """Images of `classes` in one compiled call.

        An image depends only on (seed, class, index).

        Args:
          classes: class ids of the data set, or class names; None = all learned classes. One class
            needs no list, and a text may name several, as on the command line: "3,5". A class that
            is called "2" but has another id is "name:2"; see `settings.ids.resolve`.
          per_class: images of each class.
          num_steps: steps of a fixed-step solver; None = `sample.num_steps` of the run.
          solver: euler, midpoint, heun or dopri5; None = `sample.solver` of the run.
          seed: another seed gives other images.
          task: use the model as it was after this task; None = the newest.

        Raises:
          ValueError: for no class, for a class or a task that is not learned, or an unknown solver.
        """
        last = self._task(task)
        if classes is None:
            known = [label for task in self.stream.tasks[: last.index] for label in task.labels]
            ids = sorted(self.stream.class_order[label] for label in known)
            classes = [number for number in ids if self.removed.of(number) is None]
        ids = [resolve(entry, self.class_names, "class") for entry in self._listed(classes)]
        labels = self._learned_labels(ids, last)
        _check_integer("per_class", per_class, 1, 1_000_000)
        _check_integer("seed", seed, -(2**63), 2**63 - 1)
        room.check_samples(len(ids), per_class, self.settings.data)
        asked = {"num_steps": num_steps, "solver": solver}
        sample = opened.changed(self.settings, sample=asked).sample
        with jax.set_mesh(self._mesh):
            # Another stream than that of the evaluation, so these images are not those that the
            # judge was trained on.
            key = stream_key(seed, "user samples")
            sampler = self._sampler(sample, last)
            images, calls = sampler(self._memory(last.index), key, labels, per_class)
        names = tuple(self.class_names[i] for i in ids)
        return Samples(images, tuple(ids), names, calls)

    def _listed(self, classes) -> list:
        """The classes that a user names, as a list of ids and names."""
        listed = classes
        if isinstance(classes, str) and classes not in self.class_names:
            listed = separated(classes)
        elif isinstance(classes, str | numbers.Integral):
            listed = [classes]
        try:
            listed = list(listed)
        except TypeError:
            raise ValueError(
                f"classes={hints.quoted(classes)}: a list of ids or names is needed, such as [3, 5]"
            ) from None
        if not listed:
            raise ValueError(
                f"classes={hints.quoted(classes)}: at least one is needed; None = all learned "
                "classes"
            )
        return listed

    def draw(self, names: Sequence[str], count: int, key: jax.Array) -> Iterator[np.ndarray]:
        """`count` images uint8 [count, H, W, C] of each named class, one class after the other.

        The model is that of the first task after which all of them are learned. An image depends
        only on (key, class, index). One program serves any number of classes.
        """
        ids = [self.class_names.index(name) for name in names]
        labels = self._labels(ids)
        last = next(t for t in self.stream.tasks if max(labels) <= max(t.labels))
        known, sampler = self._learned_labels(ids, last), self._sampler(self.settings.sample, last)
        with jax.set_mesh(self._mesh):
            for label in known:
                yield sampler.one_class(self._memory(last.index), key, label, count)[0]

    def evaluate(self, sample: dict | None = None, judge: dict | None = None) -> dict:
        """Evaluates every learned task again, with some keys of `sample` and `judge` changed.

        It needs the data of the run. It returns a dictionary like `results.json`; the workdir is
        not changed. Raises `ValueError` for a key or value that these sections do not know.
        """
        for number in range(len(self.class_names)):
            self.check_not_removed(number)  # its row and column would mean nothing
        run = opened.changed(self.settings, sample=sample or {}, judge=judge or {})

        def make(setup: Setup) -> GeneratorEvaluation:
            sampler = functools.partial(self._sampler, run.sample)
            return GeneratorEvaluation(setup.method, setup.data, sampler, setup.mesh, silent)

        return self._evaluate_all(run, make)

    def export_classes(
        self,
        classes: Sequence[int | str] | None,
        out: str | Path,
        *,
        merged: bool = False,
        overwrite: bool = False,
    ) -> tuple[Path, ...]:
        """Writes a safetensors file for each class into the folder `out`; returns their paths.

        Args:
          classes: ids or names as for `sample`; None = all learned classes.
          out: a folder; it is made if it is missing.
          merged: False = the factors of the class, for runs with the same trunk; True = the whole
            network of the class as an ordinary U-Net, without an adapter.
          overwrite: whether files that are there may be replaced.

        Raises:
          ValueError: for a class that is not learned, a file that is there, and a method whose
            classes have nothing of their own.
        """
        return class_files.export_classes(self, classes, out, merged=merged, overwrite=overwrite)

    def export_trunk(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the trunk to a safetensors file; returns its path. Errors as `export_classes`."""
        return class_files.export_trunk(self, path, overwrite=overwrite)

    def read_class(self, path: str | Path) -> ClassFile:
        """The content of a class file, checked to belong to the trunk of this run.

        Raises `ValueError` in one line for a file that is damaged or of another kind, and for a
        class of another trunk (with the SHA-256 of both), family, p, set of layers or image size.
        """
        return class_files.read_class(self, path)

    def _learned_labels(self, ids: Sequence[int], last: Task) -> list[int]:
        known = {label for task in self.stream.tasks[: last.index] for label in task.labels}
        # A user counts classes as the data set does; inside, a label is the place in the class
        # order.
        labels = self._labels(ids)
        for class_id, label in zip(ids, labels, strict=True):
            self.check_not_removed(class_id)
            if label not in known:
                raise ValueError(
                    f"class {class_id} ({self.class_names[class_id]}) is not learned after task "
                    f"{last.index}"
                )
        return labels


def _check_integer(name: str, value, least: int, most: int) -> None:
    if not isinstance(value, numbers.Integral) or not least <= value <= most:
        raise ValueError(
            f"{name}={hints.quoted(value)}: an integer from {least} to {most} is needed"
        )
