"""A classifier on disk: it classifies a user's images and is tested on a user's data."""

import dataclasses
import functools
import os
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy import special

from flcl import settings
from flcl.data.arrays.user import from_user
from flcl.data.selection import Selection, everything
from flcl.data.sources import Split, load_labelled, load_source
from flcl.evaluate.classifiers import ClassifierEvaluation
from flcl.evaluate.features import Inference, Progress, silent
from flcl.methods.base import Tree
from flcl.metrics import classification
from flcl.runs.opened import run as opened
from flcl.runs.opened import streamed
from flcl.runs.outside import adapter as adapters
from flcl.runs.outside import exporting, pure
from flcl.runs.results import ClassifierResults
from flcl.runs.setup import Setup


class Predictions(NamedTuple):
    """The answers of a classifier for N images.

    Attributes:
      classes: the class id of the data set with the highest score, [N].
      names: the names of these classes, [N].
      scores: [N, K], one score per class id; -inf for a class that is not learned.
      probabilities: [N, K]: the softmax of the scores divided by the temperature of the head, which
        was fitted on held-out training images; 0 for a class that is not learned.
    """

    classes: np.ndarray
    names: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray


class ClassifierOnDisk(opened.Run):
    """A finished or interrupted run of a classifier; see `opened.Run` for its attributes."""

    kind = "classifier"
    settings: settings.ClassifierRun

    @property
    def results(self) -> ClassifierResults | None:
        """What `results.json` holds now; see `opened.Run.results`."""
        return typing.cast(ClassifierResults | None, super().results)

    def __init__(self, workdir: str | Path, **options):
        super().__init__(workdir, **options)
        # Solved once: it may take a large system of equations.
        self._solved = functools.lru_cache(maxsize=2)(
            lambda last: self._inference(last).method.solved(self._memory(last))
        )

    def _inference(self, last: int) -> Inference:
        """The programs for the memory after task `last`."""
        task = self.stream.tasks[last - 1]
        return Inference(self._setup.of_task(task).method, self._mesh)

    def classify(self, images, *, head: str | None = None, after: int | None = None) -> Predictions:
        """The class of each image, among all learned classes.

        Args:
          images: uint8 [N, H, W, 3], [N, H, W] or one image, or a list of paths, pictures, encoded
            images (bytes) or arrays; see `flcl.data.arrays.user`. They are resized in the same way
            as the training images.
          head: one of the heads that the run fits (`heads.fit`); None = the head of the method.
          after: use the model as it was after this task; None = the newest. It chooses a stored
            model; it is not the task of the images.

        Raises:
          ValueError: for images of another kind, a task that is not learned, an unknown head.
        """
        scores = self._scores(everything(self._pixels(images)), head, after)
        classes = scores.argmax(axis=1)
        last = self._task(after, "after").index
        temperature = self._setup.method.temperatures(self._memory(last))[self._head(head)]
        probabilities = special.softmax(scores / temperature, axis=1)
        names = tuple(self.class_names[i] for i in classes)
        return Predictions(classes, names, scores, probabilities)

    def classify_files(
        self,
        paths: Iterable[str | os.PathLike] | str | os.PathLike,
        *,
        head: str | None = None,
        after: int | None = None,
        skipped: streamed.Skipped | None = None,
        progress: Progress = silent,
    ) -> Iterator[streamed.FileAnswer]:
        """The class of any number of image files, one answer after the other, in their order.

        Only two batches of `train.eval_batch_size` images are in memory.

        Args:
          paths: files, and folders in the place of all files in them; see `streamed.listed`.
          head, after: as for `classify`.
          skipped: is called with the path and the reason of each file that is no readable image;
            None = the first one is an error.
          progress: makes what is told the number of finished files.

        Raises:
          ValueError: for a path that does not exist, an unknown head, a task that is not learned.
        """
        files = streamed.listed(paths)
        self._head(head), self._task(after, "after")
        return self._classified(files, head, after, skipped, progress)

    def _classified(self, files, head, after, skipped, progress) -> Iterator[streamed.FileAnswer]:
        size, threads = self.settings.train.eval_batch_size, self.settings.runtime.threads
        advance = progress("classify", len(files))
        batches = streamed.batches(files, size, self.settings.data, threads, skipped)
        for number, (paths, pixels) in enumerate(batches, start=1):
            if paths:
                answers = self.classify(pixels, head=head, after=after)
                yield from streamed.answers(paths, answers.probabilities, self.class_names)
            advance(min(number * size, len(files)))

    def features(self, images, *, after: int | None = None) -> np.ndarray:
        """Features float32 [N, d] of images; see `classify` for the arguments and errors."""
        selection = everything(self._pixels(images))
        last = self._task(after, "after").index
        with jax.set_mesh(self._mesh):
            return self._inference(last).features(self._memory(last), selection)

    def export_adapter(
        self,
        out: str | Path,
        *,
        model: str | None = None,
        prefix: str = "",
        overwrite: bool = False,
    ) -> Path:
        """Writes the change of the transformer as a PEFT folder: see `flcl.models.pretrained.peft`.

        Args:
          out: the folder; it is made if it is missing.
          model: the model in PyTorch whose modules are named, see `peft.MODELS`: vit, dinov2, timm,
            ...; None = that of the weights file.
          prefix: what that model has before these names, such as `vit.` in a model with a head.
          overwrite: whether files that are there may be replaced.

        Raises:
          ValueError: for a method without such a form, such as one with a prompt, and for weights
            that are those of no model in PyTorch.
        """
        return adapters.export_adapter(self, out, model, prefix, overwrite)

    def functional(
        self, *, head: str | None = None, after: int | None = None
    ) -> tuple[Tree, pure.ClassifyFunction]:
        """`(parameters, classify)`: classification as a pure function, for your own program.

        `classify(parameters, images)` gives the scores [N, K] of `run.classify`, by class id, -inf
        for a class that is not learned. images: uint8 [N, H, W, C] of the size and channels of the
        run, or float 0..255 if you need a gradient. The function works inside `jax.jit`,
        `jax.vmap`, `jax.grad` and programs on several devices.

        `parameters` are what the scores need of the memory of the run, on no particular device.
        For `head` and `after` see `classify`.
        """
        return self._function(head, after)

    def export(
        self,
        path: str | os.PathLike,
        *,
        weights: str = exporting.INSIDE,
        head: str | None = None,
        after: int | None = None,
        platforms: Sequence[str] = exporting.PLATFORMS,
    ) -> exporting.Exported:
        """Writes a program that classifies images where neither flcl nor flax is installed.

        It needs JAX and flatbuffers, which is what `jax.export` reads its files with:

            from jax import export

            program = export.deserialize(bytearray(open("model.jax", "rb").read()))
            scores = program.call(images)

        images: uint8 [N, H, W, C] of the size and channels of the run, N is free. scores: [N, K]
        as in `classify`. path, weights, platforms: as for `GeneratorOnDisk.export`; head, after: as
        for `classify`. Raises `ValueError` for another word and weights of more than 2 GiB inside.
        """
        parameters, function = self._function(head, after)
        last = self._task(after, "after")
        method = self._inference(last.index).method
        program = exporting.classifying(method, function, parameters)
        ids = self._learned(last)
        labels = dict(zip((self.class_names[i] for i in ids), self._labels(ids), strict=True))
        return exporting.Exported(*exporting.write(program, path, weights, platforms), labels)

    def _function(self, head: str | None, after: int | None) -> tuple[Tree, pure.ClassifyFunction]:
        head, last = self._head(head), self._task(after, "after").index
        parameters = {
            "memory": self._memory(last),
            "solved": self._solved(last),
            "places": np.asarray(self._labels(np.arange(len(self.class_names))), np.int32),
        }
        data = self.settings.data
        shape = (1, data.image_size, data.image_size, data.channels)
        function = pure.classify_function(self._inference(last).method, head)
        images = jax.ShapeDtypeStruct(shape, np.uint8)
        few, function = pure.slimmed(function, parameters, images)
        return pure.free_arrays(few, self._mesh), function

    def evaluate(self) -> dict:
        """Tests every learned task again on the data of the run.

        Returns a dictionary like `results.json`, without the values that are measured in training
        (ranks, drift). The workdir is not changed.
        """

        def make(setup: Setup) -> ClassifierEvaluation:
            def inference(task):
                return Inference(setup.of_task(task).method, setup.mesh)

            return ClassifierEvaluation(setup.method, setup.data, inference, silent)

        return self._evaluate_all(self.settings, make)

    def evaluate_on(
        self, data: str | None = None, *, head: str | None = None, after: int | None = None
    ) -> dict:
        """Accuracy on labelled images.

        Args:
          data: such as folder:PATH or npz:PATH, with the class names of the run; None = all test
            images of the run's data.
          head: one of the heads that the run fits; None = the head of the method.
          after: use the model as it was after this task; None = the newest.

        Returns:
          `found` (a line about the images), `images`, `top1`, `top5`, `per_class` (by name, None
          without images), `per_domain` (the same for each domain of the images; empty if they have
          no domains), `confusion` (rows are true classes, columns are answers, both by class id),
          `class_names`, `head` and `after_task`. `images_learned` and `top1_learned` count only
          images of learned classes (None without such images); the answer for any other image is
          always wrong.

        Raises:
          ValueError: for unreadable data, or a class that the run does not know.
        """
        split, domain_names, line = self._labelled(data)
        scores = self._scores(everything(split.images), head, after)
        return {
            "data": data or self.settings.data.source,
            "found": line,
            "head": head or self._setup.method.head,
            "after_task": self._task(after, "after").index,
            "images": len(split.labels),
            **self._accuracies(scores, split, domain_names),
            "class_names": list(self.class_names),
        }

    def _accuracies(self, scores: np.ndarray, split: Split, domain_names: tuple[str, ...]) -> dict:
        """The numbers of `evaluate_on` from the scores [N, capacity] of its images."""
        answers, count = scores.argmax(axis=1), len(self.class_names)
        confusion = classification.confusion(answers, split.labels, count)
        accuracies = classification.per_class_accuracy(confusion)

        def top(k: int, rows=slice(None)) -> float | None:
            labels = split.labels[rows]
            return classification.top_k_accuracy(scores[rows], labels, k) if len(labels) else None

        # A class that is not learned has the score -inf for every image.
        known = np.isfinite(scores).any(axis=0)[split.labels]
        return {
            "top1": top(1),
            "top5": top(5),
            "images_learned": int(known.sum()),
            "top1_learned": top(1, known),
            "per_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self.class_names, accuracies, strict=True)
            },
            "per_domain": {
                name: top(1, split.domains == number) for number, name in enumerate(domain_names)
            },
            "confusion": confusion.tolist(),
        }

    def _labelled(self, data: str | None) -> tuple[Split, tuple[str, ...], str]:
        """The images of `evaluate_on`, the names of their domains, and a line about them."""
        # All test images, also if the run itself tested only some of each class.
        read = dataclasses.replace(self.settings.data, test_per_class=0)
        if not data:
            # Only the test images of the run's data: the others were used for training.
            source = load_source(read)
            line = f"{read.source}: {len(source.test.labels):,} test images"
            return source.test, source.domain_names, line
        lines: list[str] = []
        split, domain_names = load_labelled(data, read, self.class_names, say=lines.append)
        return split, domain_names, lines[0]

    def _pixels(self, images) -> np.ndarray:
        pixels = from_user(images, self.settings.data)
        if not len(pixels):
            raise ValueError("images: none were given; at least one is needed")
        return pixels

    def _head(self, head: str | None) -> str:
        heads = self._setup.method.heads
        if head is not None and head not in heads:
            raise ValueError(f"head={head!r}: accepted are {', '.join(heads)}")
        return head or self._setup.method.head

    def _scores(self, images: Selection, head: str | None, after: int | None) -> np.ndarray:
        """Scores [N, K] by class id."""
        head, newest = self._head(head), self._task(after, "after")
        if not self._learned(newest):
            raise ValueError(
                f"workdir {self.workdir}: every class learned after task {newest.index} was "
                "removed, so there is no answer"
            )
        last = newest.index
        with jax.set_mesh(self._mesh):
            inference = self._inference(last)
            features = inference.features(self._memory(last), images)
            scores = inference.scores(self._solved(last), features)[head]
        # Columns by class id of the data set, as users count classes; inside they are ordered by
        # label.
        return scores[:, self._labels(np.arange(len(self.class_names)))]
