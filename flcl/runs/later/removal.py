"""Removes classes of a run exactly: nothing that belongs to them alone stays in the workdir.

In a generator these are the factors of a class. In a classifier they are its column of the linear
head and its rows of every statistic, in every stored task that has them; what the network and the
statistics of all classes together have learned from the class stays, and so does the number of its
images, with which the shared covariance is divided.

A stored task is written again with zeros in the place of the class, so no shape and no other class
changes. The new save is complete in `checkpoints/removing` before the old one goes. If the process
is killed, the run opens for nothing but the same command, which ends the work.
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
from flcl.data.sequence.stream import Task
from flcl.evaluate.references import References
from flcl.methods.base import Memory, Tree
from flcl.runs.memory import empty_memory, read_task
from flcl.runs.opened import run as opened
from flcl.runs.opened.classifier import ClassifierOnDisk
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.saved import removed
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.removed import Removal, Removals
from flcl.settings.ids import listed
from flcl.storage import paths
from flcl.storage.seals import Seals

_NEW, _OLD = "removing", "removing_old"
WINDOW = 16
"""Bytes: so many of a class's numbers, anywhere in a file, are a trace of the class."""


def remove_classes(
    workdir: str | Path, classes: Sequence[int | str] | int | str
) -> tuple[Removal, ...]:
    """Removes learned classes from a run; returns what was removed.

    classes: ids or names as for `sample`, such as "3,5". An empty list only ends a removal that was
    stopped. Pictures of a class stay, and so do its numbers in the results. The reference features
    of its groups are deleted: these groups are not tested any more.

    Raises `ValueError` for a class that is not learned or already removed, a run that another
    process uses or that has not learned all of its tasks, a generator whose classes share
    everything, and files in the workdir that hold numbers of the class, such as one that was
    exported there.
    """
    workdir = paths.local(workdir, "workdir")
    stored, _ = opened.read(workdir, removing=True)
    kind = GeneratorOnDisk if isinstance(stored, settings.GeneratorRun) else ClassifierOnDisk
    with workdirs.locked(workdir):
        _end_swap(workdir / "checkpoints")
        run = kind(workdir, removing=True)
        seals, before = Seals(workdir), run.removed
        ids = _checked_ids(run, classes, before)
        today = datetime.date.today().isoformat()
        new = {
            str(i): Removal(name=run.class_names[i], task=_task(run, i).index, when=today)
            for i in ids
        }
        every = {**before.classes, **new}
        removed.write(seals, Removals(classes=every, unfinished=True))
        # Also those of a removal that was stopped.
        labels = run._labels([*ids, *(before.ids if before.unfinished else ())])
        _write_again(run, labels, seals)
        _drop_running(workdir)
        for group in run.stream.groups:
            if set(labels) & set(group.labels):
                References(seals).drop(group.index)
        removed.write(seals, Removals(classes=every))
    return tuple(new.values())


def traces(
    workdir: Path, numbers: np.ndarray, others: np.ndarray, skipped: Path | None = None
) -> list[Path]:
    """The files of a folder that hold `WINDOW` bytes of the `numbers` of a class, at any place.

    skipped: a folder in it that is not searched. numbers, others: float32. What `others` holds
    too, such as values that no step has changed, is no trace. Checkpoints are compressed: of
    numbers that can be packed, no bytes are found there.
    """
    ours, theirs = (_windows(values.astype("<f4").tobytes(), 4) for values in (numbers, others))
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


def _checked_ids(run: opened.Run, classes, before: Removals) -> list[int]:
    only_ends = before.unfinished and isinstance(classes, Sequence) and not len(classes)
    ids = [] if only_ends else listed("classes", classes, run.class_names)
    ids = list(dict.fromkeys(ids))
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
                f"{found[0]}: holds numbers of class {number} ({name}), and is no file of the "
                "run: delete it or move it away, then remove the class"
            )
    return ids


def _traces_of(run: opened.Run, number: int) -> list[Path]:
    method, memory = run._setup.method, run._memory(run.learned[-1])
    kept = method.forget(memory, run._labels([number])[0])
    leaves = zip(*map(jax.tree.leaves, (memory, kept)), strict=True)
    # Only arrays with rows of classes: a trunk has none, and may be large.
    pairs = [tuple(map(np.asarray, pair)) for pair in leaves if pair[0] is not pair[1]]
    numbers = np.concatenate([old[old != new].astype(np.float32) for old, new in pairs])
    others = np.concatenate([new.ravel().astype(np.float32) for _, new in pairs])
    # The saves of the run are written again.
    return traces(run.workdir, numbers, others, run.workdir / "checkpoints")


def _task(run: opened.Run, number: int) -> Task:
    task = run.task_of(number)
    assert task is not None, "all tasks are learned"
    return task


def _write_again(run: opened.Run, labels: Sequence[int], seals: Seals) -> None:
    """Stores every task that has something of the classes `labels` without it."""
    setup, folder = run._setup, run.workdir / "checkpoints"
    first = min(
        (task.index for task in run.stream.tasks if set(task.labels) & set(labels)), default=0
    )
    with jax.set_mesh(run._mesh):
        memory = empty_memory(setup)
        for task in run.stream.tasks:
            memory, stored = read_task(setup, run._checkpoints, memory, task)
            if not first or task.index < first:
                continue
            memory, left = without(setup.of_task(task).method, memory, task, stored, labels)
            name = f"checkpoints/tasks/{task.index}"
            if left is not stored:
                with Checkpoints(folder / _NEW) as new:
                    new.save_task(task.index, left)
                    seals.note(name, new.digest_of(task.index))
                _swap(folder, task.index)
                _clear(folder)
            # A copy of the old save must not count as the save of this run any more.
            seals.forget_earlier(name)


def without(
    method, memory: Memory, task: Task, stored: Tree, labels: Sequence[int]
) -> tuple[Memory, Tree]:
    """The memory, and what `task` has `stored`, without the classes `labels`.

    `stored` itself if it has nothing of them.
    """
    before, kept = method.added(memory, task), memory
    for label in labels:
        kept = method.forget(kept, label)
    after = method.added(kept, task)
    # All else stays as it is stored, under the names of an older version, too.
    changed = {
        name: after[name] for name in stored if not _equal(before.get(name), after.get(name))
    }
    return kept, {**stored, **changed} if changed else stored


def _equal(tree: Tree, other: Tree) -> bool:
    """Whether two parts of a save have the same bits."""
    pairs = zip(*map(jax.tree.leaves, (tree, other)), strict=True)
    return all(
        old is new or np.asarray(old).tobytes() == np.asarray(new).tobytes() for old, new in pairs
    )


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
