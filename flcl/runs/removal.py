"""Removes classes of a generator exactly: no byte of their factors stays in the workdir.

The stored task of a class is written again with zeros in the place of its factors, so no shape and
no other class changes. The new save is complete in `checkpoints/removing` before the old one goes.
If the process is killed, the run opens for nothing but the same command, which ends the work.
"""

import contextlib
import datetime
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from flcl import files, settings
from flcl.data.stream import Task
from flcl.runs.opened import run as opened
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.saved import removed
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.removed import Removal, Removals
from flcl.settings.ids import resolve
from flcl.storage import paths
from flcl.storage.seals import Seals

_NEW, _OLD = "removing", "removing_old"
WINDOW = 16
"""Bytes: so many of a class's factors, anywhere in a file, are a trace of the class."""


def remove_classes(workdir: str | Path, classes: Sequence[int | str]) -> tuple[Removal, ...]:
    """Removes learned classes from the run of a generator; returns what was removed.

    classes: ids or names, as for `sample`. An empty list only ends a removal that was stopped.
    Pictures that the run drew of a class stay, and so do its numbers in the results.

    Raises `ValueError` for a class that is not learned or already removed, a run that another
    process uses or that has not learned all of its tasks, a method whose classes share everything,
    and files in the workdir that hold factors of the class, such as one that was exported there.
    """
    workdir = paths.local(workdir, "workdir")
    if not isinstance(opened.read(workdir)[0], settings.GeneratorRun):
        raise ValueError(
            f"workdir {workdir} holds a classifier, whose classes share one adapter: it keeps what "
            "it learned from a class, so none can be removed exactly"
        )
    with workdirs.locked(workdir):
        _end_swap(workdir / "checkpoints")
        run = GeneratorOnDisk(workdir, removing=True)
        seals = Seals(workdir)
        before = run.removed
        ids = _checked_ids(run, classes, before)
        unfinished = [int(text) for text in before.classes] if before.unfinished else []
        today = datetime.date.today().isoformat()
        new = {
            str(i): Removal(name=run.class_names[i], task=_task(run, i).index, when=today)
            for i in ids
        }
        every = {**before.classes, **new}
        removed.write(seals, Removals(classes=every, unfinished=True))
        for task in run.stream.tasks:
            labels = {run._labels([i])[0] for i in [*ids, *unfinished]} & set(task.labels)
            if labels:
                _write_again(run, task, sorted(labels), seals)
        _drop_running(workdir)
        removed.write(seals, Removals(classes=every))
    return tuple(new.values())


def traces(
    workdir: Path, factors: np.ndarray, others: np.ndarray, skipped: Path | None = None
) -> list[Path]:
    """The files of a folder that hold `WINDOW` bytes of `factors`, at any place.

    skipped: a folder in it that is not searched. factors, others: float32. What `others` holds
    too, such as values that no step has changed, is no trace. Checkpoints are compressed: of
    numbers that can be packed, no bytes are found there.
    """
    ours, theirs = (_windows(values.astype("<f4").tobytes(), 4) for values in (factors, others))
    wanted = ours - theirs
    # Equal numbers side by side, such as zeros, say nothing about a class.
    wanted = {window for window in wanted if len(set(np.frombuffer(window, "<f4"))) > 2}
    if not wanted:
        return []
    starts = np.unique(np.frombuffer(b"".join(w[:8] for w in wanted), np.uint64))
    return [
        path
        for path in sorted(workdir.rglob("*"))
        if path.is_file()
        and not (skipped and path.is_relative_to(skipped))
        and _holds(files.read_bytes(path), starts, wanted)
    ]


def _holds(content: bytes, starts: np.ndarray, wanted: set[bytes]) -> bool:
    for shift in range(min(8, len(content))):
        count = max(0, (len(content) - shift) // 8)
        words = np.frombuffer(content, np.uint64, count, shift)
        for place in np.flatnonzero(np.isin(words, starts)):
            begin = shift + 8 * int(place)
            if content[begin : begin + WINDOW] in wanted:
                return True
    return False


def _windows(content: bytes, step: int) -> set[bytes]:
    """Every window of `WINDOW` bytes that begins at a multiple of `step`."""
    last = len(content) - WINDOW
    return {content[place : place + WINDOW] for place in range(0, last + 1, step)}


def _checked_ids(run: GeneratorOnDisk, classes, before: Removals) -> list[int]:
    ids = list(dict.fromkeys(resolve(entry, run.class_names, "class") for entry in classes))
    if not ids and not before.unfinished:
        raise ValueError("classes=[]: at least one is needed")
    if len(run.learned) < len(run.stream.tasks):
        raise ValueError(
            f"workdir {run.workdir} has learned {len(run.learned)} of {len(run.stream.tasks)} "
            "tasks: finish the run first; its next tasks may start from the class"
        )
    if before.unfinished:  # the command may be the one that was stopped
        ids = [number for number in ids if before.of(number) is None]
    for number in ids:
        name = run.class_names[number]
        run.check_not_removed(number)
        if found := _traces_of(run, number):
            raise ValueError(
                f"{found[0]}: holds factors of class {number} ({name}), and is no file of the run: "
                "delete it or move it away, then remove the class"
            )
    return ids


def _traces_of(run: GeneratorOnDisk, number: int) -> list[Path]:
    method, memory = run._setup.method, run._memory(run.learned[-1])
    label = run._labels([number])[0]
    _, factors = method.trunk_and_factors(memory, label)
    kept = method.forget(memory, label)
    # The saves of the run are written again.
    return traces(run.workdir, _flat(factors), _flat(kept), run.workdir / "checkpoints")


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in jax.tree.leaves(tree)])


def _task(run: GeneratorOnDisk, number: int) -> Task:
    task = run.task_of(number)
    assert task is not None, "all tasks are learned"
    return task


def _write_again(run: GeneratorOnDisk, task: Task, labels: Sequence[int], seals: Seals) -> None:
    """Stores a task with zeros in the place of the factors of `labels`."""
    method, memory = run._setup.method, run._memory(task.index)
    for label in labels:
        memory = method.forget(memory, label)
    folder, name = run.workdir / "checkpoints", f"checkpoints/tasks/{task.index}"
    with jax.set_mesh(run._mesh), Checkpoints(folder / _NEW) as new:
        new.save_task(task.index, method.added(memory, task))
        seals.note(name, new.digest_of(task.index))
    _swap(folder, task.index)
    _clear(folder)
    # A copy of the old save must not count as the save of this run any more.
    seals.forget_earlier(name)


def _swap(folder: Path, task: int) -> None:
    """Puts the new save of a task into the place of the old one, by two renames."""
    new, old = folder / _NEW / "tasks" / str(task), folder / _OLD / str(task)
    place = folder / "tasks" / str(task)
    if place.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        place.rename(old)
    new.rename(place)
    _flush(place.parent)


def _end_swap(folder: Path) -> None:
    """Ends what an earlier process may have left between two renames; throws the rest away."""
    for new in sorted((folder / _NEW / "tasks").glob("[0-9]*")):
        # Only a complete save has its number as its name.
        if new.name.isdigit() and not (folder / "tasks" / new.name).exists():
            _swap(folder, int(new.name))
    _clear(folder)


def _clear(folder: Path) -> None:
    for name in (_NEW, _OLD):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / name)
    _flush(folder)


def _flush(folder: Path) -> None:
    """Names must be on the disk before what follows from them."""
    if folder.is_dir():
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _drop_running(workdir: Path) -> None:
    """States inside a task hold the factors of its classes."""
    if (workdir / "checkpoints" / "running").is_dir():
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.drop_running()
