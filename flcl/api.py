"""What users call: the one place that puts methods, training and reports together."""

import dataclasses
from pathlib import Path

from flcl import methods, settings
from flcl.data.base import placeholder
from flcl.data.sources import load_source
from flcl.data.stream import make_stream
from flcl.report.reporter import Reporter
from flcl.train import experiment, opened
from flcl.train.opened_classifier import ClassifierOnDisk
from flcl.train.opened_generator import GeneratorOnDisk


def run(settings: settings.Run, workdir: str | Path) -> dict:
    """Trains and evaluates a task sequence, or continues one; returns its `results.json`.

    See `flcl.train.experiment.run` for what is raised.
    """
    return experiment.run(settings, workdir, methods.build, Reporter)


def open_run(workdir: str | Path) -> GeneratorOnDisk | ClassifierOnDisk:
    """A run on disk: a generator samples, a classifier classifies, both evaluate.

    Raises `ValueError` when the folder holds no run, or a damaged one.
    """
    stored, _ = opened.read(Path(workdir))
    generates = isinstance(stored, settings.GeneratorRun)
    return (GeneratorOnDisk if generates else ClassifierOnDisk)(workdir, methods.build)


def describe(settings: settings.Run) -> dict:
    """Sizes of a run before it is started: see `methods.base.Generator` and `Classifier`.

    The data is only counted, not decoded; where there is none yet, `stream.capacity` says how many
    classes there will be.
    """
    try:
        source = load_source(dataclasses.replace(settings.data, memory_gib=0.0))
    except (ValueError, OSError):
        if not settings.stream.capacity:
            raise
        source = placeholder(settings.stream.capacity)
    return methods.build(settings, make_stream(settings.stream, source)).describe()
