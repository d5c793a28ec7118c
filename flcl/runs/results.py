"""The schema of `results.json`: the name and type of every entry.

The file contains nothing that differs between equal runs; `record.py` assembles it after every
task. Entries with a default may be missing in files of older versions. This module needs no JAX.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from flcl.storage import schema
from flcl.storage.schema import left_out, rest

NAME = "results.json"

Numbers = tuple[float, ...]
Tested = tuple[float | None, ...]
"""Accuracies of groups; None for a group that could not be tested any more."""
Matrix = tuple[tuple[float | None, ...], ...]
"""Values [T, G] after each task for each group; None for a group not learned yet or not tested."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Numbers derived from an accuracy matrix: see `metrics.matrix`; None = not defined.

    images_per_task: the test images on which the accuracy after each task rests.
    """

    last_accuracy: float
    last_accuracy_task_mean: float | None = None
    average_incremental_accuracy: float
    average_incremental_accuracy_task_mean: float | None = None
    forgetting: float | None = None
    forgetting_per_group: tuple[float | None, ...] = ()
    backward_transfer: float | None = None
    accuracy_per_task: Tested
    accuracy_per_task_task_mean: Tested = ()
    images_per_task: tuple[int, ...] | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """Importance of an adapted convolution: its score (largest = 1) and deviation of its lift."""

    index: int
    name: str
    score: float
    rms_deviation: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSelection:
    """The rank r of a task, and p(r) of every candidate; None if there was no choice.

    held_out: the loss of each candidate divided by ln(classes), if the rank was chosen by it.
    """

    task: int
    rank: int
    candidates: tuple[int, ...]
    probabilities: Numbers | None = None
    complexity: float | None = None
    centred: float | None = None
    held_out: Numbers | None = left_out()

    @property
    def probability(self) -> float | None:
        """p(r) of the rank of the task; None if there was no choice."""
        by_rank = dict(zip(self.candidates, self.probabilities or (), strict=False))
        return by_rank.get(self.rank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Values of a method after a task; `others` has the values of methods unknown here.

    coverage: rho, the share of the energy of the task's gradient that FM-LoRA's bases hold before
    it. columns: those of the bases after it, if they may grow. bytes: what the task stored, if that
    is known only when it ends. images: SHA-256 of its images in any order, if they are in memory.
    """

    effective_rank: Mapping[str, float] | None = left_out()
    importance: tuple[Importance, ...] | None = left_out()
    rank_selection: RankSelection | None = left_out()
    coverage: float | None = left_out()
    columns: int | None = left_out()
    bytes: int | None = left_out()
    images: str | None = left_out()
    others: Mapping[str, Any] = rest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """Samples of some classes beside real test images of them; None = not measured.

    generated, real: the images that the Frechet distance counts. compared: the images of each kind
    for the metrics of pairs. fd: Frechet distance. kd, kd_error: unbiased kernel distance and its
    standard error. precision to coverage: see `metrics.neighbours`. copies: the share of samples
    that are too near to a training image of their class; copies_of_test: that of test images.
    """

    generated: int
    real: int
    compared: int
    fd: float | None = left_out()
    kd: float | None = left_out()
    kd_error: float | None = left_out()
    precision: float | None = left_out()
    recall: float | None = left_out()
    density: float | None = left_out()
    coverage: float | None = left_out()
    copies: float | None = left_out()
    copies_of_test: float | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """How good the samples after a task are, over all tested classes, per group and per class.

    features: `judge.features`; of a file, its kind and its name. sha256: that of the file. None: a
    group without its test images, or with a class that was removed.
    """

    features: str
    sha256: str | None = left_out()
    all: Likeness | None = None
    per_task: tuple[Likeness | None, ...] = ()
    per_class: Mapping[str, Likeness | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRow:
    """The evaluation after a task; the accuracy of a group is the mean over `repeats`.

    fidelity_classes: the number of classes that the judge of the fidelity knows. quality: None in
    files of older versions, and if `judge.metrics` is empty. own_classifier: accuracy of each group
    by the classifier of the method, if it has one.
    """

    accuracy: Tested
    repeats: tuple[Tested, ...]
    fidelity_per_task: Tested
    fidelity_per_class: Mapping[str, float | None]
    fidelity_classes: int | None = left_out()
    quality: Quality | None = left_out()
    function_evaluations: int | None
    own_classifier: Tested | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftRow:
    """How far the features of each group have moved at the end of a task; None = not measured."""

    relative: tuple[float | None, ...]
    cosine: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsRow:
    """Accuracy of each group by head with other statistics than those in use, after a task.

    stale: they never followed the features that later tasks moved. true: they are counted from all
    training images so far, with the features after the task.
    """

    stale: Mapping[str, Tested]
    true: Mapping[str, Tested]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRow:
    """The evaluation after a task: accuracy of each group, also for every head by name."""

    accuracy: Tested
    drift: DriftRow
    statistics: StatisticsRow | None = left_out()
    heads: Mapping[str, Tested] = rest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Share of the samples that the judge trained on real images recognises."""

    matrix: tuple[Tested, ...] = ()
    per_task: Tested = ()
    per_class: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the images of a generator were sampled; counts are by label.

    grid: None in files of older versions, whose steps were uniform.
    """

    solver: str
    num_steps: int
    grid: str | None = left_out()
    rtol: float
    atol: float
    chunk: int
    guidance: float | None = left_out()
    function_evaluations: int | None
    images_per_class: tuple[int, ...]
    oversample: float
    judge_sees_of_newest_task: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """The pre-trained weights of a classifier."""

    source: str
    sha256: str
    normalize: str
    layout: str | None = left_out()
    ignored: tuple[str, ...] | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadResults:
    """Accuracy of one head."""

    matrix: Matrix
    summary: Summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far features have moved since the end of the task of their group, [T, G].

    relative: |f - f0| / |f0|; cosine: 1 - cos(f, f0).
    """

    relative: Matrix = ()
    cosine: Matrix = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes that are needed once, and for each class."""

    once: int
    per_class: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OldClasses:
    """What stands for the images of old classes, and what it costs.

    statistics: those of the heads, float32. generator: its parameters, float32. real_images: what
    is compared: `real_images_per_class` images as uint8, which no run stores. samples_per_class: of
    the generator, after each task. unlabelled_images: those of `drift.images`.
    """

    statistics: Bytes
    real_images: Bytes
    real_images_per_class: int
    generator: Bytes | None = left_out()
    samples_per_class: int | None = left_out()
    unlabelled_images: int | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The entries of both kinds of runs. Labels are positions in `class_order` and `class_names`.

    matrix: [T, G] accuracy on each group after each task; test_counts: [G] test images of a group.
    parameters: sizes by name, from `describe` of the method.
    """

    name: str = "run"
    method: str
    scenario: str
    seed: int | None = None
    class_order: tuple[int, ...]
    class_names: tuple[str, ...]
    tasks: tuple[tuple[int, ...], ...]
    task_names: tuple[str, ...] = ()
    steps_per_task: tuple[int, ...] = ()
    stream_fingerprint: str = ""
    matrix: Matrix
    test_counts: tuple[int, ...]
    summary: Summary
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    diagnosis: tuple[Diagnosis, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    complete: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorResults(Results):
    """`results.json` of a generator.

    ceiling: accuracy of the judge trained on real images, [G]. quality: that of the newest row,
    with the names of classes. own_classifier: the results of the classifier that some methods have;
    it saw real images, so it is not compared with the judge.
    """

    kind: Literal["generator"] = "generator"
    ceiling: Tested | None = None
    fidelity: Fidelity = Fidelity()
    quality: Quality | None = left_out()
    sampling: Sampling | None = None
    importance: tuple[Importance, ...] | None = None
    own_classifier: HeadResults | None = left_out()
    rows: tuple[GeneratorRow, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierResults(Results):
    """`results.json` of a classifier.

    head: the name of the head whose answers are those of the method. heads: the results of every
    head by name. class_mean: the only other head in files of older versions.
    """

    kind: Literal["classifier"] = "classifier"
    head: str
    heads: Mapping[str, HeadResults] | None = left_out()
    class_mean: HeadResults | None = left_out()
    drift: Drift = Drift()
    rank_selection: tuple[RankSelection, ...] = ()
    weights: Weights | None = None
    old_classes: OldClasses | None = left_out()
    rows: tuple[ClassifierRow, ...] = ()


KINDS = {"generator": GeneratorResults, "classifier": ClassifierResults}


def to_json(results: Results) -> dict:
    """The content of `results.json`."""
    return schema.to_json(results)


def from_json(values: Mapping, file: str = NAME) -> GeneratorResults | ClassifierResults:
    """The content of a `results.json`, checked.

    file: its name in errors. `ValueError` names the place of an entry that has a wrong type, is
    missing or is unknown.
    """
    # Files of the first version name no kind; they are all from generators.
    kind = values.get("kind", "generator") if isinstance(values, Mapping) else "generator"
    if kind not in KINDS:
        raise ValueError(f"{file}: kind is {kind!r}, {' or '.join(map(repr, KINDS))} is needed")
    return schema.from_json(KINDS[kind], values, file)
