"""Trains one planned task of a generator alone: later tasks need nothing but the first one.

So all of them can train at the same time, on as many machines. Their classes are written to files,
and `flcl.runs.later.importing` puts them into the run.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import jax

from flcl import settings, stopping
from flcl.data.encoded.check import Progress, silent
from flcl.data.sequence.stream import Task
from flcl.devices import hosts
from flcl.runs.experiment import Experiment
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.outside import class_files
from flcl.runs.reporter import Reporter
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import Setup, prepare, use_compile_cache
from flcl.runs.statistics import substitutes
from flcl.storage import paths
from flcl.storage.seals import Seals

_INDEPENDENT = ("first", "none")


def learn_only(
    workdir: str | Path,
    index: int,
    out: str | Path | None,
    make_reporter: Callable[[Path, settings.Run], Reporter],
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Trains task `index` on the trunk of task 1; returns the files of its classes.

    See `GeneratorOnDisk.learn_only`. Nothing in the workdir changes but the folder `only`.
    """
    workdir = paths.local(workdir, "workdir")
    run = GeneratorOnDisk(workdir)
    task = _task(run, index)
    out = paths.local(out or workdir / "only" / f"task_{index:02d}", "out")
    use_compile_cache(run.settings.runtime)
    seals = Seals(out, writes=hosts.is_main())
    with stopping.on_signals(jax.process_count() > 1), contextlib.ExitStack() as held:
        with hosts.together():
            begun = workdirs.begun(workdir)
            setup, _ = prepare(run.settings, stored=True, begun=begun, progress=progress)
            setup, old_images = substitutes.prepare(setup, progress)
            lock = workdirs.locked(out) if hosts.is_main() else contextlib.nullcontext(lambda: None)
            check_there = held.enter_context(lock)
        hosts.connect(setup.mesh)
        checkpoints = held.enter_context(Checkpoints(out / "checkpoints", seals=seals))
        held.enter_context(jax.set_mesh(setup.mesh))
        reporter = make_reporter(out, setup.run)
        reporter.say(f"{setup.data.summary()}; task {index} alone")
        experiment = Experiment(setup, out, checkpoints, reporter, check_there, seals, old_images)
        memory = _after_first(setup, workdir)
        if index in checkpoints.numbers():
            memory = restore_task(setup, checkpoints, memory, task)
        else:
            memory = experiment.train(memory, task)
        if not hosts.is_main():
            return ()
        return class_files.export_task(run, memory, task, out, overwrite=True)


def _after_first(setup: Setup, workdir: Path):
    """The memory after task 1."""
    seals = Seals(workdir, writes=False)
    with Checkpoints(workdir / "checkpoints", read_only=True, seals=seals) as stored:
        first = setup.data.stream.tasks[0]
        return restore_task(setup, stored, empty_memory(setup), first)


def _task(run: GeneratorOnDisk, index: int) -> Task:
    """The task with this number; `ValueError` if it depends on others."""
    later = len(run._setup.data.learned)
    planned = len(run.stream.tasks) - later
    if type(index) is not int or not 2 <= index <= planned:
        raise ValueError(
            f"only={index}: the number of a planned task after the first is needed, "
            + (f"2 to {planned}" if planned > 1 else "and this run has planned one task")
        )
    start = getattr(getattr(run.settings, "adapter", None), "warm_start", "")
    if start not in _INDEPENDENT:
        why = f"adapter.warm_start={start!r}" if start else f"method={run.settings.method!r}"
        raise ValueError(
            f"only={index}: with {why} a task depends on those before it; train the run with "
            "method=funlora and adapter.warm_start=first"
        )
    return run.stream.tasks[index - 1]
