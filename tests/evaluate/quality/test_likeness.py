"""The numbers of each class, of each group and of all, against the metrics of plain arrays."""

import types

import numpy as np
import pytest

from flcl import settings
from flcl.data.selection import everything
from flcl.data.sequence.stream import TaskStream
from flcl.data.sequence.tasks import Counts
from flcl.evaluate.features import silent
from flcl.evaluate.quality import likeness
from flcl.evaluate.quality.likeness import Likenesses
from flcl.metrics.frechet import Gaussian, frechet_distance
from flcl.metrics.kernel import kernel_distance
from flcl.metrics.neighbours import copied, manifolds

RNG = np.random.default_rng(0)
TRAIN, TEST, SAMPLES = 9, 7, 11


def images(count: int, label: int) -> np.ndarray:
    return RNG.integers(20 * label, 20 * label + 60, (count, 2, 2, 1)).astype(np.uint8)


def plain(pixels) -> np.ndarray:
    """The features of this test: the pixels themselves."""
    return np.asarray(pixels, np.float64).reshape(len(pixels), -1)


class Data:
    """Three tasks of two classes; class 5 has no test images, and task 2 cannot be tested."""

    def __init__(self):
        self.stream = TaskStream("cil", tuple(range(6)), (2, 2, 2), False, 6)
        self.train_images = {label: images(TRAIN, label) for label in range(6)}
        self.test_images = {label: images(TEST if label < 5 else 0, label) for label in range(6)}

    def tested(self, group) -> bool:
        return group.index != 2

    def images(self, group) -> Counts:
        return Counts((TRAIN, TRAIN), tuple(len(self.test_images[k]) for k in group.labels))

    def train(self, group) -> dict:
        return {label: everything(self.train_images[label]) for label in group.labels}

    def test(self, group):
        pixels = np.concatenate([self.test_images[label] for label in group.labels])
        counts = [len(self.test_images[label]) for label in group.labels]
        return everything(pixels, np.repeat(group.labels, counts))


class Judge:
    """Gives pixels as features, in batches of four, and counts the images."""

    def __init__(self):
        self.seen = 0

    def features(self, variables, selection):
        self.seen += len(selection)
        for start in range(0, len(selection), 4):
            rows = np.arange(start, min(start + 4, len(selection)))
            yield plain(selection[rows]).astype(np.float32)


@pytest.fixture
def world():
    data, judge = Data(), Judge()
    drawn = {label: images(SAMPLES, label) for label in range(6)}
    known = Likenesses(settings.Judge(), data, None, silent)

    def measure(variables="judge 1", groups=data.stream.groups):
        return known.entries(judge, variables, drawn, groups)["quality"]

    return types.SimpleNamespace(data=data, judge=judge, drawn=drawn, measure=measure)


def expected(world, labels) -> dict:
    real = [plain(world.data.test_images[label]) for label in labels]
    made = [plain(world.drawn[label]) for label in labels]
    first = np.concatenate([each[:TEST] for each in made])
    whole = [np.concatenate(real), np.concatenate(made)]
    train = [plain(world.data.train_images[label]) for label in labels]
    kernel = kernel_distance(whole[0], first, [TEST] * len(labels))
    return {
        "generated": len(whole[1]),
        "real": len(whole[0]),
        "compared": len(first),
        "fd": frechet_distance(*map(Gaussian.of, whole)),
        "kd": kernel.value,
        "kd_error": kernel.error,
        **manifolds(whole[0], first)._asdict(),
        "copies": np.mean([copied(t, m) for t, m in zip(train, made, strict=True)]),
        "copies_of_test": np.mean([copied(t, r) for t, r in zip(train, real, strict=True)]),
    }


def test_every_number_is_that_of_the_plain_metrics(world):
    quality = world.measure()
    assert quality["features"] == "judge" and "sha256" not in quality
    for found, labels in (
        (quality["all"], (0, 1, 4)),
        (quality["per_task"][0], (0, 1)),
        (quality["per_task"][2], (4,)),
        (quality["per_class"]["1"], (1,)),
    ):
        assert found == pytest.approx(expected(world, labels), rel=1e-4)
    # Not tested: a group whose images are gone, and a class without a test image.
    assert quality["per_task"][1] is None
    assert [quality["per_class"][str(label)] for label in (2, 3, 5)] == [None] * 3


def test_only_what_changed_is_measured_again(world):
    first = world.measure()
    each = TRAIN + TEST + SAMPLES
    assert world.judge.seen == 3 * each
    assert world.measure() == first and world.judge.seen == 3 * each
    world.drawn[1] = images(SAMPLES, 1)
    second = world.measure()
    # The training images of its group are compared again; the test images are known.
    again = 2 * (TRAIN + SAMPLES)
    assert world.judge.seen == 3 * each + again
    assert second["all"] != first["all"] and second["per_class"]["0"] == first["per_class"]["0"]
    world.measure("judge 2")
    assert world.judge.seen == 3 * each + again + 3 * each


def test_large_sets_are_compared_in_part(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "MOST_COMPARED", 6)
        quality = world.measure()
    assert quality["all"]["compared"] == 6 and quality["per_class"]["0"]["compared"] == 6
    assert quality["all"]["generated"] == 3 * SAMPLES


def test_few_images_have_what_they_can_have(world):
    for label in range(6):
        world.data.test_images[label] = world.data.test_images[label][:1]
    numbers = world.measure()["per_class"]["0"]
    assert numbers.keys() == {"generated", "real", "compared", "copies", "copies_of_test"}


def test_metrics_are_chosen_and_may_be_none(world):
    def entries(*metrics):
        known = Likenesses(settings.Judge(metrics=metrics), world.data, None, silent)
        return known.entries(world.judge, "judge", world.drawn, world.data.stream.groups)

    assert entries() == {} and world.judge.seen == 0
    assert set(entries("fd")["quality"]["all"]) == {"generated", "real", "compared", "fd"}
    assert world.judge.seen == 3 * (TEST + SAMPLES)
