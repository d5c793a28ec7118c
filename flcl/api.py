"""What users call: the one place that puts methods, training and reports together."""

from pathlib import Path

from flcl import methods, settings
from flcl.data.sources import load_source
from flcl.data.stream import make_stream
from flcl.report.reporter import Reporter
from flcl.train import experiment
from flcl.train.opened import Run


def run(settings: settings.GeneratorRun, workdir: str | Path) -> dict:
    """Trains and evaluates a task sequence, or continues one; returns its `results.json`.

    See `flcl.train.experiment.run` for what is raised.
    """
    return experiment.run(settings, workdir, methods.build, Reporter)


def open_run(workdir: str | Path) -> Run:
    """A run on disk, for sampling and evaluation.

    Raises `ValueError` when the folder holds no run, or a damaged one.
    """
    return Run(workdir, methods.build)


def describe(settings: settings.GeneratorRun) -> dict:
    """Sizes of a run before it is started: see `methods.base.Generator.describe`."""
    stream = make_stream(settings.stream, load_source(settings.data))
    return methods.build(settings, stream).describe()
