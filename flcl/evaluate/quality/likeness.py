"""How good generated images are, beside the real ones: per class, per group and over all.

Fréchet and kernel distance, precision, recall, density and coverage compare samples with real
*test* images. Copies are looked for among the *training* images of the class.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.data.selection import Selection, everything
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.evaluate.features import Progress
from flcl.evaluate.judge import Judge
from flcl.evaluate.quality.extractors import Extractor, JudgeFeatures, of_file
from flcl.metrics.frechet import Gaussian, frechet_distance, together
from flcl.metrics.kernel import kernel_distance
from flcl.metrics.neighbours import NEIGHBOURS, copied, manifolds

MOST_COMPARED = 10_000
"""Images of each kind in the metrics of pairs, over all classes; time grows with the square."""

_DIGITS = 6  # significant digits that are stored; the errors are far larger


class _Images(NamedTuple):
    """What is kept of the images of one class.

    gaussian: statistics of all of them. first: features of the first ones. copies: the share that
    is too near to a training image, or None.
    """

    gaussian: Gaussian
    first: np.ndarray
    copies: float | None


class Likenesses:
    """Measures the samples after every task. Classes that did not change are measured once."""

    def __init__(self, judge: settings.Judge, data: TaskData, mesh: Mesh, progress: Progress):
        self._metrics, self._spec = judge.metrics, judge.features
        self._data, self._mesh, self._progress = data, mesh, progress
        self._extractor: Extractor | None = None
        self._made_with: dict | None = None
        self._pixels: dict[int, np.ndarray] = {}
        self._generated: dict[int, _Images] = {}
        self._real: dict[int, _Images] = {}
        self._measured: dict[tuple[int, ...], dict] = {}

    def entries(
        self,
        judge: Judge,
        variables: dict,
        drawn: Mapping[int, np.ndarray],
        groups: Sequence[Task],
    ) -> dict:
        """The entry `quality` of a row, see `results.Quality`; empty without `judge.metrics`.

        judge, variables: trained on real images. drawn: samples uint8 [n, H, W, C] by label.
        groups: all that are learned; those that cannot be tested have None.
        """
        if not self._metrics:
            return {}
        self._use(judge, variables)
        tested = [group for group in groups if self._data.tested(group)]
        inside = {group: self._labels(group, drawn) for group in tested}
        advance = self._progress("comparing samples with real images", len(tested))
        for done, group in enumerate(tested, start=1):
            self._add(group, inside[group], drawn)
            advance(done)
        every = [label for group in tested for label in inside[group]]
        alone = {label: self._measure((label,)) for label in every}
        quality = {
            "features": self._extractor.name,
            **({"sha256": self._extractor.sha256} if self._extractor.sha256 else {}),
            "all": self._measure(tuple(every)),
            "per_task": [
                self._measure(tuple(inside[group])) if group in inside else None for group in groups
            ],
            "per_class": {
                str(label): alone.get(label)
                for group in groups
                for label in group.labels
                if label in drawn
            },
        }
        return {"quality": quality}

    def _use(self, judge: Judge, variables: dict) -> None:
        """Chooses the features; those of another judge make all earlier ones useless."""
        if self._spec != "judge":
            self._extractor = self._extractor or of_file(self._spec, self._mesh)
        elif self._made_with is not variables:
            self._extractor, self._made_with = JudgeFeatures(judge, variables), variables
            for kept in (self._pixels, self._generated, self._real, self._measured):
                kept.clear()

    def _labels(self, group: Task, drawn: Mapping[int, np.ndarray]) -> list[int]:
        """The classes of a group that have samples and test images."""
        counts = zip(group.labels, self._data.images(group).test, strict=True)
        return [label for label, count in counts if count and label in drawn]

    def _add(self, group: Task, labels: list[int], drawn: Mapping[int, np.ndarray]) -> None:
        """Adds the features of a group, unless those of the same images are there."""
        changed = [k for k in labels if self._pixels.get(k) is not drawn[k]]
        if not changed:
            return
        self._measured.clear()
        train = self._data.train(group) if "copies" in self._metrics else {}
        test = self._data.test(group)
        for label in changed:
            # Each class in batches of its own: so its numbers do not depend on other classes.
            known = self._features(train[label])[1] if train else None
            if label not in self._real:
                rows = np.flatnonzero(test.labels == label)
                self._real[label] = self._images(_some(test, rows), known, MOST_COMPARED)
            most = len(self._real[label].first)
            self._generated[label] = self._images(everything(drawn[label]), known, most)
            self._pixels[label] = drawn[label]

    def _images(self, images: Selection, train: np.ndarray | None, most: int) -> _Images:
        """What is kept of some images. train: features of the training images of their class."""
        gaussian, features = self._features(images)
        share = copied(train, features) if train is not None and len(train) > 1 else None
        # A copy, because a part of an array keeps all of it in memory.
        return _Images(gaussian, features[:most].copy(), share)

    def _features(self, images: Selection) -> tuple[Gaussian, np.ndarray]:
        """Statistics and features [N, d] of the images of one class; at least one."""
        batches = list(self._extractor(images))
        return together(map(Gaussian.of, batches)), np.concatenate(batches)

    def _measure(self, labels: tuple[int, ...]) -> dict | None:
        """The numbers of some classes together; None if there is no class."""
        if not labels:
            return None
        if labels not in self._measured:
            self._measured[labels] = self._numbers(labels)
        return self._measured[labels]

    def _numbers(self, labels: tuple[int, ...]) -> dict:
        real = [self._real[label] for label in labels]
        generated = [self._generated[label] for label in labels]
        # As many of both kinds, because precision and recall depend on the numbers of images.
        most = max(1, MOST_COMPARED // len(labels))
        counts = [
            min(len(r.first), len(g.first), most) for r, g in zip(real, generated, strict=True)
        ]
        pair = [
            np.concatenate([each.first[:n] for each, n in zip(side, counts, strict=True)])
            for side in (real, generated)
        ]
        whole = [together(each.gaussian for each in side) for side in (real, generated)]
        numbers = {"generated": whole[1].count, "real": whole[0].count, "compared": sum(counts)}
        if "fd" in self._metrics and min(each.count for each in whole) > 1:
            numbers["fd"] = frechet_distance(*whole)
        if "kd" in self._metrics and sum(counts) > 1:
            numbers["kd"], numbers["kd_error"] = kernel_distance(*pair)
        if "prdc" in self._metrics and sum(counts) > NEIGHBOURS:
            numbers |= manifolds(*pair)._asdict()
        numbers["copies"], numbers["copies_of_test"] = _share(generated), _share(real)
        return {name: _rounded(value) for name, value in numbers.items() if value is not None}


def _share(sets: list[_Images]) -> float | None:
    """The share of copies over all images of several classes; None if it is unknown."""
    known = [each for each in sets if each.copies is not None]
    total = sum(each.gaussian.count for each in known)
    return sum(each.copies * each.gaussian.count for each in known) / total if total else None


def _some(images: Selection, rows: np.ndarray) -> Selection:
    """The images at `rows` of a selection."""
    return Selection(images.images, images.indices[rows])


def _rounded(value):
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
