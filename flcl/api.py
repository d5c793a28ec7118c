"""The public functions: the only module that combines methods, training and reports."""

import dataclasses
from pathlib import Path

from flcl import methods, settings
from flcl.cost import check as ahead
from flcl.cost import economics
from flcl.data.base import placeholder
from flcl.data.sources import load_source
from flcl.data.stream import TaskStream, make_stream
from flcl.report.reporter import Reporter
from flcl.runs import experiment
from flcl.runs.opened import run as opened
from flcl.runs.opened.classifier import ClassifierOnDisk
from flcl.runs.opened.generator import GeneratorOnDisk


def run(settings: settings.Run, workdir: str | Path) -> dict:
    """Trains and evaluates a task sequence, or continues one; returns its `results.json`.

    `flcl.runs.experiment.run` lists the errors that it raises.
    """
    return experiment.run(settings, workdir, Reporter)


def open_run(workdir: str | Path) -> GeneratorOnDisk | ClassifierOnDisk:
    """Opens a run on disk: a generator samples, a classifier classifies, both evaluate.

    Raises `ValueError` when the folder contains no run, or a damaged one.
    """
    stored, _ = opened.read(Path(workdir))
    generates = isinstance(stored, settings.GeneratorRun)
    return (GeneratorOnDisk if generates else ClassifierOnDisk)(workdir)


def describe(settings: settings.Run) -> dict:
    """Sizes of a run before it starts: see `methods.base.Generator` and `Classifier`.

    The data is only counted, not decoded. If there is no data yet, `stream.capacity` gives the
    number of classes and `stream.domain_order` the domains. If there is no weights file yet,
    `model.variant` gives the sizes; LayerScale and registers count only if they are set.
    """
    return methods.build(methods.sized(settings), _stream(settings)).describe()


def step_flops(settings: settings.ClassifierRun) -> dict:
    """The cost of a training step of a classifier: see `flcl.cost.economics.step_flops`.

    It compiles the step of both phases and the step of full fine-tuning, for the batch of the run.
    """
    return economics.step_flops(methods.sized(settings), _stream(settings))


def precompile(settings: settings.Run, topology: str, **options) -> dict:
    """The memory and work of the programs of a run on other devices: see `flcl.cost.check`.

    topology: such as `v5e:4x4` or `h100:8`. `options` are those of `flcl.cost.check.check`.
    """
    return ahead.check(methods.sized(settings), _stream(settings), topology, **options)


def _stream(run: settings.Run) -> TaskStream:
    """Classes and tasks of a run, from its data if there is any."""
    try:
        source = load_source(dataclasses.replace(run.data, memory_gib=0.0))
    except (ValueError, OSError):
        if not run.stream.capacity:
            raise
        domains = run.stream.domain_order.split(",")
        names = domains if run.stream.scenario == "dil" else ()
        source = placeholder(run.stream.capacity, names)
    return make_stream(run.stream, source)
