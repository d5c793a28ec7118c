"""The public functions: the only module that combines methods, training and reports."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, overload

from flcl import called, methods, settings
from flcl.cost import check as ahead
from flcl.cost import economics
from flcl.data.base import placeholder
from flcl.data.sequence.stream import TaskStream, make_stream
from flcl.data.sources import load_source
from flcl.devices import hosts
from flcl.report.progress import ProgressBar
from flcl.report.reporter import Reporter
from flcl.runs import combined, experiment
from flcl.runs.later import alone, importing, learning, removal
from flcl.runs.opened import run as opened
from flcl.runs.opened.classifier import ClassifierOnDisk
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.settings import PARTS, Combined, bridge
from flcl.settings.given.overrides import load_config
from flcl.shown import show_everything
from flcl.storage import paths

__all__ = [
    "ClassifierOnDisk",
    "GeneratorOnDisk",
    "TwoRuns",
    "describe",
    "load_config",
    "open_run",
    "precompile",
    "run",
    "step_flops",
    "train",
]

_KINDS = {"generator": GeneratorOnDisk, "classifier": ClassifierOnDisk}


class TwoRuns(NamedTuple):
    """The runs of a config that trains a generator and a classifier, each opened."""

    generator: GeneratorOnDisk
    classifier: ClassifierOnDisk


_Place = str | os.PathLike[str]


@overload
def train(
    settings: settings.GeneratorRun, workdir: _Place, *, until: int | None = None
) -> GeneratorOnDisk: ...


@overload
def train(
    settings: settings.ClassifierRun, workdir: _Place, *, until: int | None = None
) -> ClassifierOnDisk: ...


@overload
def train(settings: settings.Combined, workdir: _Place, *, until: None = None) -> TwoRuns: ...


@overload
def train(
    settings: settings.Run | settings.Combined, workdir: _Place, *, until: int | None = None
) -> GeneratorOnDisk | ClassifierOnDisk | TwoRuns: ...


def train(settings, workdir, *, until=None):
    """Trains and evaluates a task sequence, or continues one; returns the run, opened.

    Args:
      settings: what `load_config` returns. Settings of two runs train both, in the folders
        `generator` and `classifier` of `workdir`.
      workdir: the folder of the run; made if missing. `~` is the home folder. The same call
        continues a run that was stopped, and only opens one that is complete.
      until: stop after the task of this number; None = after the last one. Two runs have no such
        stop.

    Raises:
      ValueError: for settings that cannot be trained, a folder with a run of other settings, or an
        address such as `gs://bucket/run`; `flcl.runs.experiment.run` lists all errors.
    """
    run(settings, workdir, until)
    if isinstance(settings, Combined):
        return TwoRuns(*(open_run(paths.local(workdir, "workdir") / part) for part in PARTS))
    return open_run(workdir)


def run(
    settings: settings.Run | settings.Combined, workdir: _Place, until: int | None = None
) -> dict:
    """As `train`, but the run is not opened: returns the content of its `results.json`.

    Settings of two runs return the results of each by its name: see `flcl.runs.combined`.
    """
    show_everything()

    two = isinstance(settings, Combined)
    progress = _bars((settings.generator if two else settings).runtime.progress)
    workdir = paths.local(workdir, "workdir")
    if until is not None and (two or type(until) is not int or until < 1):
        raise ValueError(f"until={until!r}: the number of a task of one run is needed, from 1")
    if two:
        bridge.from_dict(bridge.as_dict(settings))
        return combined.run(settings, workdir, Reporter, progress)
    return experiment.run(_checked(settings), workdir, Reporter, progress, until=until)


@overload
def open_run(workdir: _Place, kind: Literal["generator"]) -> GeneratorOnDisk: ...


@overload
def open_run(workdir: _Place, kind: Literal["classifier"]) -> ClassifierOnDisk: ...


@overload
def open_run(workdir: _Place, kind: None = None) -> GeneratorOnDisk | ClassifierOnDisk: ...


def open_run(workdir, kind=None):
    """Opens a run on disk: a generator samples, a classifier classifies, both evaluate and learn.

    kind: "generator" or "classifier", if only one of them is of use; None = both. Raises
    `ValueError` when the folder contains no run, a damaged one, or one of the other kind.
    """
    workdir = paths.local(workdir, "workdir")
    if kind not in _KINDS and kind is not None:
        raise ValueError(f"kind={kind!r}: accepted are {', '.join(_KINDS)}")
    stored, _ = opened.read(workdir)
    stored_kind = "generator" if isinstance(stored, settings.GeneratorRun) else "classifier"
    if kind is not None and kind != stored_kind:
        raise ValueError(
            f"workdir {workdir}: this is the run of a {stored_kind}, which {_use(stored_kind)}"
        )
    return _KINDS[stored_kind](workdir, acts=_ACTS)


def _learn(workdir: Path, data: str, changes: Mapping[str, object], distinct=()) -> None:
    """What `.learn` of an opened run does."""
    show_everything()
    stored, _ = opened.read(workdir)
    shows = changes.get("runtime.progress", stored.runtime.progress)
    bars = _bars(shows is not False)  # another value is refused later
    learning.learn(workdir, data, changes, Reporter, bars, distinct=distinct)


def _learn_only(workdir: Path, task: int, out: _Place | None) -> tuple[Path, ...]:
    """What `.learn_only` of an opened run does."""
    show_everything()
    stored, _ = opened.read(workdir)
    return alone.learn_only(workdir, task, out, Reporter, _bars(stored.runtime.progress))


_ACTS = opened.Acts(
    learn=_learn,
    learn_only=_learn_only,
    import_classes=importing.import_classes,
    remove_classes=removal.remove_classes,
)


def _use(kind: str) -> str:
    if kind == "generator":
        return f"classifies nothing; use {called.program('sample')} or .sample"
    commands = f"{called.program('classify')}, {called.program('evaluate')}"
    return f"draws nothing; use {commands} or .classify"


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
            f"settings: a {type(run).__name__} is no settings.Run; use what "
            "flcl.load_config returns"
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
