"""A generator on disk: it samples the classes it learned and is evaluated with other settings."""

import functools
import numbers
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flcl import hints, settings
from flcl.adapters.artifact import ClassFile
from flcl.data.sequence.stream import Task
from flcl.evaluate.features import silent
from flcl.evaluate.generators import GeneratorEvaluation
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Tree
from flcl.rng import stream_key
from flcl.runs import room
from flcl.runs.opened import run as opened
from flcl.runs.outside import class_files, exporting, pure
from flcl.runs.results import GeneratorResults
from flcl.runs.setup import Setup


class Samples(NamedTuple):
    """Generated images.

    Attributes:
      images: uint8 [K, n, H, W, C]; for `labels`, [N, H, W, C].
      classes: class ids of the data set, [K]; for `labels`, the class of each image, [N].
      names: the names of these classes.
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
            lambda sample, task: ClassSampler(
                setup.of_task(task).method, sample, setup.mesh, setup.data.noise
            )
        )

    def sample(
        self,
        classes: Sequence[int | str] | int | str | None = None,
        per_class: int | None = None,
        *,
        labels: Sequence[int | str] | int | str | None = None,
        num_steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        seed: int = 0,
        task: int | None = None,
    ) -> Samples:
        """Images of `classes`, or one image for each entry of `labels`.

        An image depends only on (seed, class, index). One compiled program for each solver and
        number of steps serves all classes, all numbers of images and all mixes.

        Args:
          classes: class ids of the data set, or class names; None = all learned classes. One class
            needs no list, and a text may name several, as on the command line: "3,5". A class that
            is called "2" but has another id is "name:2"; see `settings.ids.resolve`.
          per_class: images of each class; None = 16.
          labels: class ids or names, any mix of any length, instead of `classes` and `per_class`.
            Image i is of the class `labels[i]`. Its index is the number of equal entries before it.
          num_steps: steps of a fixed-step solver; None = `sample.num_steps` of the run.
          solver: euler, midpoint, heun or dopri5; None = `sample.solver` of the run.
          guidance: only FunLoRA has it, 1.0 = off; None = `sample.guidance` of the run.
          seed: another seed gives other images.
          task: use the model as it was after this task; None = the newest.

        Raises:
          ValueError: for a class or a task that is not learned, an unknown solver, or `labels`
            together with `classes` or `per_class`.
        """
        last = self._task(task)
        key = self.key(seed)
        asked = self._asked(num_steps=num_steps, solver=solver, guidance=guidance)
        sampler = self._sampler(asked, last)
        with jax.set_mesh(self._mesh):
            draw = functools.partial(sampler.one_class, self._memory(last.index), key)
            if labels is None:
                return self._of_classes(classes, 16 if per_class is None else per_class, last, draw)
            if classes is not None or per_class is not None:
                raise ValueError("labels: give either labels, or classes and per_class")
            return self._of_labels(labels, last, draw)

    def _asked(self, **asked) -> settings.Sample:
        """The keys `sample` of the run with what a caller asked for; None = as in the run."""
        return opened.changed(self.settings, sample=asked).sample

    def key(self, seed: int = 0) -> jax.Array:
        """The key from which `sample(seed=seed)` makes its noise, for `functional`."""
        _check_integer("seed", seed, -(2**63), 2**63 - 1)
        # Not the stream of the evaluation: the judge was trained on those images.
        return stream_key(seed, pure.USER_STREAM)

    def _of_classes(self, classes, per_class: int, last: Task, draw) -> Samples:
        if classes is None:
            classes = self._learned(last)
        ids, labels = self._named("classes", classes, last, "all learned classes")
        _check_integer("per_class", per_class, 1, 1_000_000)
        subject = f"per_class={per_class}: the images of {len(ids)} classes"
        room.check_samples(subject, len(ids) * per_class, self.settings.data)
        drawn = [draw(label, per_class) for label in labels]
        # dopri5 needs more calls for some classes than for others; the largest number is reported.
        calls = max(calls for _, calls in drawn)
        return self._samples(np.stack([images for images, _ in drawn]), ids, calls)

    def _of_labels(self, entries, last: Task, draw) -> Samples:
        ids, labels = self._named("labels", entries, last)
        data, labels = self.settings.data, np.asarray(labels)
        room.check_samples(f"labels: {len(ids)} images", len(ids), data)
        shape = (data.image_size, data.image_size, data.channels)
        images, most = np.empty((len(ids), *shape), np.uint8), 0
        for label in np.unique(labels):
            # The k-th entry of a class gets its k-th image, so a mix is made of `classes`' images.
            places = np.flatnonzero(labels == label)
            images[places], calls = draw(label, len(places))
            most = max(most, calls)
        return self._samples(images, ids, most)

    def _samples(self, images: np.ndarray, ids: list[int], calls: int) -> Samples:
        return Samples(images, tuple(ids), tuple(self.class_names[i] for i in ids), calls)

    def functional(
        self,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        task: int | None = None,
        at_once: int = 1,
    ) -> tuple[Tree, pure.SampleFunction]:
        """`(parameters, sample)`: sampling as a pure function, for your own compiled program.

        `sample(parameters, key, labels, noise=None, *, indices=None)` gives float32 images
        [N, H, W, C]. They are the end of the ODE: near [-1, 1] and not clipped.
        `flcl.ops.pixels.to_uint8` makes of them the images of `run.sample(labels=labels)` if key
        is `run.key()`; another size of a batch may round by one level. The function works inside
        `jax.jit`, `jax.vmap`, `jax.grad` and programs on several devices.

        * labels: class ids, integers [N], also traced ones. An image of a class that is not
          learned is NaN, and one that dopri5 does not reach is NaN, too.
        * noise: [N, H, W, C] at t = 0; None = that of (key, class, index).
        * indices: integers [N]; None = the number of equal labels before each one. With
          `jax.vmap` over them, all images of a class share its kernels.

        `parameters` hold the memory of the run, on no particular device. Those of another task of
        the run fit the same function.

        Args:
          num_steps, solver, guidance, task: as for `sample`.
          at_once: images that are computed together. Each of them has the kernels of its class, so
            the memory grows by one network per image. N must be a multiple of it. Choose the
            number of devices, or a multiple of it, if labels are divided over devices.
        """
        last = self._task(task)
        _check_integer("at_once", at_once, 1, 1_000_000)
        sample = self._asked(num_steps=num_steps, solver=solver, guidance=guidance)
        function = pure.sample_function(self._setup.of_task(last).method, sample, at_once)
        return self._parameters(last), function

    def export(
        self,
        path: str | os.PathLike,
        *,
        classes: str = exporting.INSIDE,
        weights: str = exporting.INSIDE,
        num_steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        task: int | None = None,
        platforms: Sequence[str] = exporting.PLATFORMS,
    ) -> exporting.Exported:
        """Writes a program that draws images where neither flcl nor flax is installed.

        It needs JAX and flatbuffers, which is what `jax.export` reads its files with:

            from jax import export
            import numpy as np

            program = export.deserialize(bytearray(open("model.jax", "rb").read()))
            images = program.call(0, 3, np.arange(64, dtype=np.int32))

        The arguments are a seed (less than 2^31), a class id and N indices; the result is uint8
        [N, H, W, C]. N is free. JAX compiles once for each N. With N = `sample.chunk` of the run
        the images have the bits of `run.sample` on one device of the same kind; another N may round
        by one level. Images of a class that is not learned, and images that dopri5 does not reach,
        are black.

        Args:
          path: the file to write, such as model.jax; an existing one is replaced.
          classes: inside = all learned classes are in the file. argument = the factors of the class
            come first, as {"LAYER/a": ..., "LAYER/b": ...}, the arrays of a file of one class. Then
            `label` is the number that chooses the noise, which `labels` of the result has.
          weights: inside = in the same file. beside = in a safetensors file of the same name, for
            large networks: they are the first argument, `safetensors.numpy.load_file(...)`.
          num_steps, solver, guidance, task: as for `sample`.
          platforms: cpu, cuda, tpu or rocm.

        Raises:
          ValueError: for another word, weights of more than 2 GiB inside, or a method whose classes
            have no factors.
        """
        last, as_argument = self._task(task), exporting.check_classes(classes)
        sample = self._asked(num_steps=num_steps, solver=solver, guidance=guidance)
        method = self._setup.of_task(last).method
        program = exporting.sampling(method, sample, self._parameters(last), as_argument)
        ids = self._learned(last)
        labels = {self.class_names[i]: self.noise_label(i) for i in ids}
        return exporting.Exported(*exporting.write(program, path, weights, platforms), labels)

    def _parameters(self, last: Task) -> Tree:
        """The memory after the task `last`, and the label of each class id that is learned."""
        ids = np.arange(len(self.class_names))
        known = np.isin(ids, self._learned(last))
        places = np.where(known, self._labels(ids), -1).astype(np.int32)
        noise = np.where(known, [self.noise_label(i) for i in ids], -1).astype(np.int32)
        parameters = {"memory": self._memory(last.index), "places": places, "noise": noise}
        return pure.free_arrays(parameters, self._mesh)

    def noise_label(self, class_id: int) -> int:
        """The number that chooses the noise of a class: its label where it was trained."""
        label = self._labels([class_id])[0]
        return self._setup.data.noise.get(label, label)

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
        not changed. A group with a class that was removed is not tested. Raises `ValueError` for a
        key or value that these sections do not know, and if no group can be tested.
        """
        run = opened.changed(self.settings, sample=sample or {}, judge=judge or {})

        def make(setup: Setup) -> GeneratorEvaluation:
            sampler = functools.partial(self._sampler, run.sample)
            return GeneratorEvaluation(setup.method, setup.data, sampler, setup.mesh, silent)

        return self._evaluate_all(run, make)

    def learn_only(self, task: int, out: str | Path | None = None) -> tuple[Path, ...]:
        """Trains one planned task alone, on the trunk of task 1; returns the files of its classes.

        The classes have the same bits as if all tasks had been trained one after the other. This
        run does not change: `import_classes` takes the files in, in the order of the tasks.

        Args:
          task: the number of a planned task after the first.
          out: the folder to write; None = `only/TASK` in the workdir. The same call continues
            there what was stopped.

        Raises:
          ValueError: for another task, and for a run whose classes depend on each other: it needs
            `adapter.warm_start` first or none.
        """
        return self._act("learn_only", task, out)

    def import_classes(
        self,
        files: Sequence[str | Path],
        names: Mapping[str, str] | None = None,
        *,
        distinct: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """Takes classes in from files of `export_classes`; returns their names.

        Samples have the bits of those of the run from which a class comes. Classes of the next
        planned tasks take their places; others become one new task.

        Args:
          files: class files that belong to the trunk of this run.
          names: new names by the name in the file; a name must be new to this run.
          distinct: new names that differ from a known one only in case or Unicode form.

        Raises:
          ValueError: in one line, for a file that is damaged or of another trunk (with the SHA-256
            of both), for a name that is known, and for a planned task of which a class is missing.
        """
        return self._act("import_classes", files, names or {}, distinct=distinct)

    def export_classes(
        self,
        classes: Sequence[int | str] | int | str | None,
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


def _check_integer(name: str, value, least: int, most: int) -> None:
    if not isinstance(value, numbers.Integral) or not least <= value <= most:
        raise ValueError(
            f"{name}={hints.quoted(value)}: an integer from {least} to {most} is needed"
        )
