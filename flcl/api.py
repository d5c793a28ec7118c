"""The public functions: the only module that combines methods, training and reports."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flcl import methods, settings
from flcl.cost import check as ahead
from flcl.cost import economics
from flcl.data.base import placeholder
from flcl.data.sources import load_source
from flcl.data.stream import TaskStream, make_stream
from flcl.devices import hosts
from flcl.report.progress import ProgressBar
from flcl.report.reporter import Reporter
from flcl.runs import combined, experiment, learning
from flcl.runs.opened import run as opened
from flcl.runs.opened.classifier import ClassifierOnDisk
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.settings import Combined, bridge
from flcl.shown import show_everything
from flcl.storage import paths


def run(settings: settings.Run | settings.Combined, workdir: str | Path) -> dict:
    """Trains and evaluates a task sequence, or continues one; returns its `results.json`.

    Settings of two runs train both in folders of `workdir`, and return the results of each by its
    name: see `flcl.runs.combined`. `flcl.runs.experiment.run` lists the errors that it raises. In
    `workdir`, `~` is the home folder; an address such as `gs://bucket/run` raises `ValueError`.
    """
    show_everything()

    two = isinstance(settings, Combined)
    progress = _bars((settings.generator if two else settings).runtime.progress)
    workdir = paths.local(workdir, "workdir")
    if two:
        bridge.from_dict(bridge.as_dict(settings))
        return combined.run(settings, workdir, Reporter, progress)
    return experiment.run(_checked(settings), workdir, Reporter, progress)


def learn(
    workdir: str | Path,
    data: str,
    changes: Mapping[str, object] | None = None,
    *,
    distinct: Sequence[str] = (),
) -> dict:
    """Learns a task that was not planned, or continues it; returns the `results.json` of the run.

    It needs no image of an earlier task: one whose images are not there any more is not tested.
    Nothing of a generator's old classes changes.

    Args:
      workdir: a run that has finished its tasks.
      data: the source of the new task, in the form of `data.source`. Its classes that the run does
        not know are learned; with `stream.scenario=dil` the source is the next domain.
      changes: keys with other values for this task, such as `{"phase2.steps": 500}`.
      distinct: names of new classes that differ from a known one only in case or Unicode form.

    Raises `ValueError` in one line: see `flcl.runs.learning.learn`.
    """
    show_everything()
    workdir = paths.local(workdir, "workdir")
    stored, _ = opened.read(workdir)
    shows = (changes or {}).get("runtime.progress", stored.runtime.progress)
    return learning.learn(
        workdir, data, changes or {}, Reporter, _bars(bool(shows)), distinct=distinct
    )


def open_run(workdir: str | Path) -> GeneratorOnDisk | ClassifierOnDisk:
    """Opens a run on disk: a generator samples, a classifier classifies, both evaluate and learn.

    Raises `ValueError` when the folder contains no run, or a damaged one.
    """
    workdir = paths.local(workdir, "workdir")
    stored, _ = opened.read(workdir)
    generates = isinstance(stored, settings.GeneratorRun)
    return (GeneratorOnDisk if generates else ClassifierOnDisk)(workdir, learn=learn)


def describe(settings: settings.Run) -> dict:
    """Sizes of a run before it starts: see `methods.base.Generator` and `Classifier`.

    The data is only counted, not decoded. If there is no data yet, `stream.capacity` gives the
    number of classes and `stream.domain_order` the domains. If there is no weights file yet,
    `model.variant` gives the sizes; LayerScale and registers count only if they are set.
    """
    run = methods.sized(_checked(settings))
    return methods.build(run, _stream(run).exact()).describe()


def step_flops(settings: settings.ClassifierRun) -> dict:
    """The cost of a training step of a classifier: see `flcl.cost.economics.step_flops`.

    It compiles the step of both phases and the step of full fine-tuning, for the batch of the run.
    """
    run = methods.sized(_checked(settings))
    return economics.step_flops(run, _stream(run))


def precompile(settings: settings.Run, topology: str, **options) -> dict:
    """The memory and work of the programs of a run on other devices: see `flcl.cost.check`.

    topology: such as `v5e:4x4` or `h100:8`. `options` are those of `flcl.cost.check.check`.
    """
    run = methods.sized(_checked(settings))
    return ahead.check(run, _stream(run), topology, **options)


def _bars(shows: bool) -> Callable[[str, int], ProgressBar]:
    """What shows progress before there is a reporter."""

    def progress(description: str, total: int) -> ProgressBar:
        return ProgressBar(description, total, enabled=shows and hosts.is_main())

    return progress


def _checked(run: settings.Run) -> settings.Run:
    """`run` itself; `ValueError` for values that a config file could not have either."""
    if isinstance(run, settings.Combined):
        raise ValueError(
            "settings: they are those of two runs; use the config of the generator or of the "
            "classifier alone"
        )
    if not isinstance(run, settings.Run):
        raise ValueError(
            f"settings: a {type(run).__name__} is no settings.Run; use "
            "flcl.settings.bridge.freeze(config)"
        )
    # The classes check no ranges: `dataclasses.replace` accepts everything.
    bridge.from_dict(bridge.as_dict(run))
    return run


def _stream(run: settings.Run) -> TaskStream:
    """Classes and tasks of a run, from its data if there is any."""
    try:
        source = load_source(dataclasses.replace(run.data, memory_gib=0.0, verify="off"))
    except (ValueError, OSError):
        if not run.stream.capacity:
            raise
        domains = run.stream.domain_order.split(",")
        names = domains if run.stream.scenario == "dil" else ()
        source = placeholder(run.stream.capacity, names)
    return make_stream(run.stream, source)
