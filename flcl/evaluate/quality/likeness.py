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


class _Copies(NamedTuple):
    """Shares of the samples and of the test images of a class, and how many images they are of."""

    samples: float
    sample_count: int
    test: float
    test_count: int


class _Class(NamedTuple):
    """What is kept of a class, of which `samples` are as many as `real`, or fewer.

    real, samples: features [n, d]. copies: None = not looked for.
    """

    real: np.ndarray
    samples: np.ndarray
    copies: _Copies | None


class _Group(NamedTuple):
    """What is kept of a group: it is measured anew only if its samples are others.

    drawn: the images of its classes. real, generated: statistics of all features; those of a class
    alone would be too many to keep. numbers: over all classes. alone: of each class.
    """

    drawn: dict[int, np.ndarray]
    classes: dict[int, _Class]
    real: Gaussian
    generated: Gaussian
    numbers: dict
    alone: dict[int, dict]


class Likenesses:
    """Measures the samples after every task. Groups that did not change are measured once."""

    def __init__(self, judge: settings.Judge, data: TaskData, mesh: Mesh, progress: Progress):
        self._metrics, self._spec = judge.metrics, judge.features
        self._data, self._mesh, self._progress = data, mesh, progress
        self._extractor: Extractor | None = None
        self._made_with: dict | None = None
        self._real: dict[int, np.ndarray] = {}
        self._groups: dict[tuple[int, ...], _Group] = {}

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
        extractor = self._features_of(judge, variables)
        advance = self._progress("comparing samples with real images", len(groups))
        measured: list[_Group | None] = []
        for group in groups:
            measured.append(self._group(group, drawn))
            advance(len(measured))
        known = [each for each in measured if each]
        alone = {label: numbers for each in known for label, numbers in each.alone.items()}
        labels = [label for group in groups for label in group.labels if label in drawn]
        quality = {
            "features": extractor.name,
            **({"sha256": extractor.sha256} if extractor.sha256 else {}),
            "all": self._over(known),
            "per_task": [each.numbers if each else None for each in measured],
            "per_class": {str(label): alone.get(label) for label in labels},
        }
        return {"quality": quality}

    def _features_of(self, judge: Judge, variables: dict) -> Extractor:
        """Chooses the features; those of another judge make all earlier ones useless."""
        if self._spec != "judge":
            self._extractor = self._extractor or of_file(self._spec, self._mesh)
        elif self._made_with is not variables:
            self._extractor, self._made_with = JudgeFeatures(judge, variables), variables
            self._real.clear()
            self._groups.clear()
        assert self._extractor is not None
        return self._extractor

    def _group(self, group: Task, drawn: Mapping[int, np.ndarray]) -> _Group | None:
        """What a group has, measured if its samples are new; None if it cannot be tested."""
        if not self._data.tested(group):
            return None
        counts = zip(group.labels, self._data.images(group).test, strict=True)
        inside = {label: drawn[label] for label, count in counts if count and label in drawn}
        if not inside:
            return None
        before = self._groups.get(group.labels)
        if before and all(before.drawn.get(k) is images for k, images in inside.items()):
            return before
        self._groups[group.labels] = self._measured(group, inside)
        return self._groups[group.labels]

    def _measured(self, group: Task, drawn: dict[int, np.ndarray]) -> _Group:
        train = self._data.train(group) if "copies" in self._metrics else {}
        test = self._data.test(group)
        classes, gaussians, alone = {}, [], {}
        for label, images in drawn.items():
            if label not in self._real:
                rows = np.flatnonzero(test.labels == label)
                self._real[label] = self._features(_some(test, rows))[1]
            real = self._real[label]
            gaussian, samples = self._features(everything(images))
            copies = self._copies(train[label], real, samples) if train else None
            # A copy, because a part of an array keeps all of it in memory.
            classes[label] = _Class(real, samples[: len(real)].copy(), copies)
            gaussians.append((Gaussian.of(real), gaussian))
            alone[label] = self._numbers([classes[label]], *gaussians[-1])
        whole = [together(side) for side in zip(*gaussians, strict=True)]
        numbers = self._numbers(list(classes.values()), *whole)
        return _Group(drawn, classes, *whole, numbers, alone)

    def _features(self, images: Selection) -> tuple[Gaussian, np.ndarray]:
        """Statistics and features [N, d] of the images of one class; at least one."""
        # Each class in batches of its own: so its numbers do not depend on other classes.
        batches = list(self._extractor(images))
        return together(map(Gaussian.of, batches)), np.concatenate(batches)

    def _copies(self, train: Selection, real: np.ndarray, samples: np.ndarray) -> _Copies | None:
        """The copies among the features of a class; None with fewer than two training images."""
        if len(train) < 2:
            return None
        known = self._features(train)[1]
        return _Copies(copied(known, samples), len(samples), copied(known, real), len(real))

    def _over(self, groups: list[_Group]) -> dict | None:
        """The numbers over all groups; None if there is no group."""
        if not groups:
            return None
        if len(groups) == 1:
            return groups[0].numbers
        classes = [each for group in groups for each in group.classes.values()]
        real, generated = ([getattr(g, side) for g in groups] for side in ("real", "generated"))
        return self._numbers(classes, together(real), together(generated))

    def _numbers(self, classes: list[_Class], real: Gaussian, generated: Gaussian) -> dict:
        """See `results.Likeness`."""
        # As many of both kinds, because precision and recall depend on the numbers of images.
        most = max(1, MOST_COMPARED // len(classes))
        counts = [min(len(each.samples), most) for each in classes]
        pair = [
            np.concatenate([side[:n] for side, n in zip(sides, counts, strict=True)])
            for sides in zip(*((each.real, each.samples) for each in classes), strict=True)
        ]
        numbers = {"generated": generated.count, "real": real.count, "compared": sum(counts)}
        if "fd" in self._metrics and min(real.count, generated.count) > 1:
            numbers["fd"] = frechet_distance(real, generated)
        if "kd" in self._metrics and sum(counts) > 1:
            strata = counts if min(counts) > 1 else None
            numbers["kd"], numbers["kd_error"] = kernel_distance(*pair, strata)
        if "prdc" in self._metrics and sum(counts) > NEIGHBOURS:
            numbers |= manifolds(*pair)._asdict()
        known = [each.copies for each in classes if each.copies]
        if known:
            numbers["copies"] = _mean([(c.samples, c.sample_count) for c in known])
            numbers["copies_of_test"] = _mean([(c.test, c.test_count) for c in known])
        return {name: _rounded(value) for name, value in numbers.items() if value is not None}


def _mean(shares: list[tuple[float, int]]) -> float:
    """The mean of shares, weighted by the numbers of images that they are of."""
    return sum(share * count for share, count in shares) / sum(count for _, count in shares)


def _some(images: Selection, rows: np.ndarray) -> Selection:
    """The images at `rows` of a selection."""
    return Selection(images.images, images.indices[rows])


def _rounded(value):
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
