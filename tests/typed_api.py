"""The public functions as a type checker sees them: it reads this file, and nothing runs it."""

from typing import assert_type

import numpy as np

import flcl
from flcl.comparison import Comparison
from flcl.runs.results import ClassifierResults, GeneratorResults


def the_kind_of_a_run_is_known() -> None:
    generator = flcl.open_run("runs/a", "generator")
    assert_type(generator, flcl.GeneratorOnDisk)
    assert_type(generator.results, GeneratorResults | None)
    assert_type(generator.sample([3, "cat"], per_class=4).images, np.ndarray)
    generator.classify(["a.png"])  # type: ignore[attr-defined]

    classifier = flcl.open_run("runs/b", kind="classifier")
    assert_type(classifier, flcl.ClassifierOnDisk)
    assert_type(classifier.results, ClassifierResults | None)
    assert_type(classifier.classify(["a.png", b""]).names, tuple[str, ...])
    for answer in classifier.classify_files("photos"):
        assert_type(answer.score, float)
    classifier.sample([3])  # type: ignore[attr-defined]

    either = flcl.open_run("runs/c")
    assert_type(either, flcl.GeneratorOnDisk | flcl.ClassifierOnDisk)
    if isinstance(either, flcl.ClassifierOnDisk):
        either.classify(["a.png"])


def settings_and_their_run() -> None:
    settings = flcl.load_config("funlora_digits", {"phase1.steps": 300})
    run = flcl.train(settings, "runs/a")
    assert_type(run, flcl.GeneratorOnDisk | flcl.ClassifierOnDisk | flcl.TwoRuns)
    flcl.load_config(3)  # type: ignore[arg-type]
    flcl.open_run("runs/a", "generater")  # type: ignore[call-overload]


def a_comparison_is_an_object_with_rows_and_columns() -> None:
    compared = flcl.compare("runs/*", reference="frozen")
    assert_type(compared, Comparison)
    assert_type(compared.cell("fmlora", "drift").n, int)
