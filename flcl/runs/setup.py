"""Prepares and checks everything that a run needs, before anything is written."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from flcl import methods, settings
from flcl.data.base import Begun
from flcl.data.encoded.check import Progress, silent
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.evaluate.quality import extractors
from flcl.methods.base import Method, Resolved
from flcl.runs import room
from flcl.runs.later import sources
from flcl.runs.planned.stored import without_lengths
from flcl.runs.saved.stored import History
from flcl.settings.later import changed_run
from flcl.storage import paths


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run that is checked and ready.

    Attributes:
      run: the resolved settings.
      data: the images of every task.
      method: the method, with room for the tasks so far: see `of_task`.
      mesh: the devices.
      origin: the origin of pre-trained weights, for `results.json`.
      note: one line about them for people; empty if there are none.
      substitutes: what stands for old images, for `results.json`; see `results.OldClasses`.
    """

    run: settings.Run
    data: TaskData
    method: Method
    mesh: Mesh
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    substitutes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def of_task(self, task: Task) -> "Setup":
        """This setup with the settings and the room that `task` has."""
        run, learned = self.run, self.data.unplanned(task)
        if learned and learned.changed:
            try:
                run = changed_run(run, learned.changed)
            except ValueError as error:
                place = f"stream.json: tasks[{task.index - 1}].changed"
                raise ValueError(f"{place}: {error}") from None
        method = methods.shared(run, self.data.stream.sized(task.index))
        return dataclasses.replace(self, run=run, method=method)

    def compiled(self, task: Task) -> Method:
        """The method whose programs a task runs: its own one, whatever lengths were planned."""
        there = self.of_task(task)
        return methods.shared(without_lengths(there.run), there.method.stream)

    def steps(self, task: Task) -> int:
        """Optimiser steps of a task."""
        return self.of_task(task).method.steps(task, sum(self.data.images(task).train))


def prepare(
    run: settings.Run,
    mesh: Mesh | None = None,
    *,
    stored: bool = False,
    begun: Begun | None = None,
    history: History | None = None,
    removed: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[Setup, Any]:
    """Loads and checks the data, reads pre-trained weights and builds the method.

    Returns the setup and the weights, which may be large and are needed only for the first memory.
    mesh: None = make a mesh of all devices. stored: the settings are those of a run on disk, which
    are already resolved, so no weights are read. begun: how a run that has begun chose its images;
    None = it has not begun. history: its tasks, if some were not planned. removed: the ids of its
    classes that were removed. progress: shows how many images are read.

    Raises `ValueError` in one line for everything that would fail later: unreadable data, an
    invalid class order, a batch that does not split, layers or classes that do not exist.
    """
    # Whatever may fail in one process alone ends before the next exchange between processes.
    with hosts.together():
        if mesh is None:
            mesh = meshes.make_mesh(run.runtime.fsdp)
            # Before the data is read: a wrong batch size must not cost minutes.
            check_batches(run, mesh)
            room.check_images(run, mesh)
        # Before the data, too: a wrong weights file must not cost the minutes that images take.
        resolved = Resolved(run) if stored else methods.resolve(run)
    data, notes = _load(run, begun, history, progress)
    data = dataclasses.replace(data, stream=data.stream.without(removed))
    # The resolved settings are the ones that are stored: with the hash of the weights, and layer
    # numbers instead of the workdir of another run.
    method = methods.shared(resolved.run, data.stream.sized(len(data.stream.tasks)))
    room.check_model(resolved.run, method, mesh)
    room.check_generated(resolved.run, len(data.names))
    room.check_steps(resolved.run, method, data)
    note = "; ".join(filter(None, [resolved.note, *notes]))
    setup = Setup(resolved.run, data, method, mesh, resolved.origin, note)
    return setup, resolved.weights


def _load(
    run: settings.Run, begun: Begun | None, history: History | None, progress: Progress
) -> tuple[TaskData, list[str]]:
    """The images of every task; `ValueError` if a process has others than the first one."""
    # The first process prepares official archives, and others find what it has checked.
    with hosts.together(), hosts.main_first("data"):
        data, notes = sources.load(run, begun, history, progress)
    _check_same(data)
    return data, notes


def _check_same(data: TaskData) -> None:
    """Raises `ValueError` in all processes if one has other images than the first one.

    Each process may have its own copy of them; all must train on the same ones.
    """
    source, here = data.source, data.to_dict()
    skipped, first = hosts.from_main([source.skipped or (), here])
    process, advice = f"process {jax.process_index()}", "give all processes the same images"
    with hosts.together():
        for name in sorted(set(skipped).symmetric_difference(source.skipped or ())):
            where = "the first process" if name in skipped else process
            raise ValueError(
                f"{source.name}: {name} is unreadable in {where} and not in others; {advice}"
            )
        if differing := sorted(name for name in here if first.get(name) != here[name]):
            raise ValueError(
                f"{source.name}: {', '.join(differing)} of {process} are not those of the first "
                f"process; {advice}"
            )


def check_batches(run: settings.Run, mesh: Mesh) -> None:
    """Raises `ValueError` for a global batch that does not split over the devices."""
    if isinstance(run, settings.ClassifierRun):
        if isinstance(run.train, settings.HeadTrain):  # other methods have no training
            meshes.check_divides("train.batch_size", run.train.batch_size, mesh)
        return
    for name, phase in (("phase1", run.phase1), ("phase2", run.phase2)):
        meshes.check_batch(name, phase.batch_size, phase.groups, mesh)
    check_judge(run, mesh)


def check_judge(run: settings.GeneratorRun, mesh: Mesh) -> None:
    """Raises `ValueError` for a judge batch that does not split over the devices.

    Also for a file of `judge.features` that is missing, damaged or of another network.
    """
    meshes.check_divides("judge.batch_size", run.judge.batch_size, mesh)
    if run.judge.metrics:
        extractors.check(run.judge.features)


def use_compile_cache(runtime: settings.Runtime) -> None:
    """Stores compiled programs on disk, so a second run starts at once."""
    # JAX reads its own variable; a cache that the user has chosen there is not replaced.
    if runtime.compile_cache == "off" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = paths.local(runtime.compile_cache or "~/.cache/flcl", "runtime.compile_cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # A run compiles dozens of small programs; together they take as long as a large one.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
