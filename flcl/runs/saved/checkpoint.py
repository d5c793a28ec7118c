"""Checkpoints of a run; the only module that imports Orbax.

    checkpoints/tasks/<t>     what task t added to the memory; the trunk is part of task 1
    checkpoints/running/<k>   the state inside a task; `k` counts the steps of all tasks
    checkpoints/judge/0       the judge trained on real images

A save writes into a temporary folder and renames it, so the previous save is complete even if the
process is killed. Each save has a digest of its arrays, so damage is detected when it is read.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flcl import files, stopping
from flcl.devices import hosts
from flcl.storage import schema
from flcl.storage.seals import NAME as SEALS
from flcl.storage.seals import Seals

# Orbax logs every save, and every error in each of its threads. It raises the error as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def _drop_late_answers(show: Callable) -> Callable:
    """A hook that is silent about two errors that follow another one, which Orbax has raised.

    TensorStore reports to an event loop that Orbax has closed; or no event loop could be made,
    because too many files are open, and what was made of it is deleted.
    """

    def hook(lost) -> None:
        late = isinstance(lost.exc_value, RuntimeError) and lost.object is None
        closed = late and str(lost.exc_value) == "Event loop is closed"
        half_made = lost.object is asyncio.BaseEventLoop.__del__
        if not closed and not (half_made and isinstance(lost.exc_value, AttributeError)):
            show(lost)

    return hook


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for the other errors of a save of which Orbax has raised the first one."""
    error = record.exc_info[1] if record.exc_info else None
    late = "never retrieved" in record.getMessage()
    return not (late and isinstance(error, ValueError) and "OCDBT" in str(error))


sys.unraisablehook = _drop_late_answers(sys.unraisablehook)
logging.getLogger("asyncio").addFilter(_is_wanted)


class DamagedError(ValueError):
    """A checkpoint is missing, was read and is wrong, or has changed on disk.

    An error that may pass, such as a missing right or a failing disk, is an `OSError` instead.
    """


def digest(tree) -> str:
    """SHA-256 over names, shapes, types and bytes of a tree of arrays."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = hosts.whole(leaf)
        # With name, shape and type, because the same bytes could be another array.
        header = f"{jax.tree_util.keystr(path)} {value.shape} {value.dtype}"
        total.update(header.encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def layout(tree) -> dict[str, str]:
    """The shape and type of every array of a tree by name, such as `(4, 8) float32`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.shape} {leaf.dtype}" for path, leaf in leaves}


def _sealed(task: int) -> str:
    """The name of a stored task in the digests of a run."""
    return f"checkpoints/tasks/{task}"


def _read(leaf):
    """A replicated array as an array on the host; all others unchanged.

    The digest needs the host array anyway. Orbax would divide a replicated array into a piece per
    device, and would compile a program for each piece.
    """
    whole = isinstance(leaf, jax.Array) and leaf.is_fully_replicated
    return np.asarray(leaf) if whole else leaf


class _Manager(ocp.CheckpointManager):
    """A manager that never asks JAX when to stop; Orbax would use its own counts, see `hosts`."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meta:
    """What is stored beside the arrays of a save: their digest, shapes and types."""

    digest: str
    layout: Mapping[str, str]
    others: Mapping[str, Any] = schema.rest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningMeta(Meta):
    """That of a state inside a task.

    Attributes:
      task: the number of the task.
      step: its finished steps.
      held_out: the losses of the short run before it; None = there was none.
      complexity: the one such loss, in saves of format 3 and older.
    """

    task: int
    step: int
    held_out: tuple[float, ...] | None = None
    complexity: float | None = None


class Checkpoints:
    """The checkpoint folder of one run. As a context manager it waits for saves at its end.

    A stop waits for the end of a read or save: inside, it would leave threads of Orbax behind. A
    save that fails raises `OSError`; the saves before it stay.
    """

    def __init__(self, folder: Path, read_only: bool = False, seals: Seals | None = None):
        self.folder = Path(folder).absolute()
        self._read_only, self._seals = read_only, seals
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        failed: OSError | None = None
        for item, manager in self._managers.items():
            try:
                with self._writing(item):
                    manager.close()
            except OSError as error:
                failed = failed or error
        # After a stop this error is the news: what should have been saved is not. Another error
        # is its cause or has to be mended first.
        if failed is not None and (kind is None or issubclass(kind, stopping.StoppedError)):
            raise failed

    def save_task(self, task: int, added) -> None:
        """Stores what a task added; returns when it is on disk."""
        # Waits, because the caller deletes the states inside the task next: from then on this
        # save is the only copy.
        self._save("tasks", task, added, {})
        self._finish("tasks", task)

    def tasks(self) -> list[int]:
        """Numbers of the stored tasks, ascending; raises `DamagedError` if one is missing."""
        stored = self.numbers()
        # Every task builds on the one before it, so a gap makes all later tasks useless.
        for expected, task in enumerate(stored, start=1):
            if task != expected:
                raise DamagedError(
                    f"checkpoint {self.folder / 'tasks' / str(expected)} is missing; "
                    f"{self._advice(expected)}"
                )
        return stored

    def numbers(self) -> list[int]:
        """Numbers of the saves of tasks that are there, ascending."""
        return sorted(self._manager("tasks").all_steps())

    def shapes_of_task(self, task: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of a stored task by name; raises `DamagedError`."""
        try:
            texts = self._meta("tasks", task)["layout"]
        except DamagedError as error:
            raise DamagedError(f"{error}; {self._advice(task)}") from error
        # Such as `(4, 8) float32`; a text of another form is refused when the task is read.
        return {
            name: tuple(map(int, re.findall(r"\d+", text.partition(")")[0])))
            for name, text in texts.items()
        }

    def restore_task(self, task: int, target):
        """The stored part of `task`. `target` gives shapes, types and shardings.

        `DamagedError` names the folder and the last good task.
        """
        try:
            self._check_seal(task)
            return self._restore("tasks", task, target)
        except DamagedError as error:
            raise DamagedError(f"{error}; {self._advice(task)}") from error

    def digest_of(self, task: int) -> str:
        """SHA-256 of the arrays that a task has stored; raises `DamagedError`."""
        return self._meta("tasks", task)["digest"]

    def save_running(self, position: int, state, meta: dict) -> None:
        """Stores the state inside a task in the background; keeps the two newest states."""
        self._save("running", position, state, meta)

    def running(self) -> tuple[int, dict] | None:
        """Position and metadata of the newest readable state inside a task, or None."""
        # The newest state may be incomplete after a kill. The one before only costs some repeated
        # steps.
        for position in sorted(self._manager("running").all_steps(), reverse=True):
            with contextlib.suppress(DamagedError):
                meta = self._meta("running", position)
                if meta.get("complexity") is not None:
                    meta["held_out"] = [meta["complexity"]]
                return position, meta
        return None

    def restore_running(self, position: int, target):
        """The training state at `position`; raises `DamagedError`."""
        return self._restore("running", position, target)

    def drop_running(self, position: int | None = None) -> None:
        """Deletes all states inside a task, or only the state at `position`."""
        manager = self._manager("running")
        with self._writing("running"):
            # A save in the background could otherwise appear after the deletion.
            manager.wait_until_finished()
            for step in manager.all_steps() if position is None else [position]:
                manager.delete(step)

    def save_judge(self, variables, made_of: Mapping[str, list[int]]) -> None:
        """Stores the judge trained on real images. made_of: what it learned."""
        self._save("judge", 0, variables, {"made_of": dict(made_of)})
        self._finish("judge", 0)

    def restore_judge(self, target, made_of: Mapping[str, list[int]], unknown: bool = False):
        """The judge trained on real images; None if there is no readable one of `made_of`.

        unknown: whether one counts that does not say what it learned.
        """
        if not self._manager("judge").all_steps():
            return None
        # Damage is no error here: this judge can be trained again from the data.
        with contextlib.suppress(DamagedError):
            told = self._meta("judge", 0).get("made_of", made_of if unknown else None)
            if told == made_of:
                return self._restore("judge", 0, target)
        with self._writing("judge", 0):
            self._manager("judge").delete(0)
        return None

    def bytes_of_task(self, task: int) -> int:
        """Size of a stored task on disk, in bytes."""
        folder = self.folder / "tasks" / str(task)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def _manager(self, item: str) -> ocp.CheckpointManager:
        if item not in self._managers:
            # A task is kept for ever, a state inside a task only until the next two. A program
            # that only reads deletes nothing, because the run may be saving at this moment.
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2 if item == "running" else None,
                cleanup_tmp_directories=not self._read_only,
                create=not self._read_only,
                read_only=self._read_only,
            )
            with self._writing(item):
                self._managers[item] = _Manager(self.folder / item, options=options)
        return self._managers[item]

    def _save(self, item: str, step: int, tree, meta: dict) -> None:
        tree = jax.tree.map(_read, tree)
        # The digest is that of the arrays in memory, so it also detects a write that went wrong.
        meta = {**meta, "digest": digest(tree), "layout": layout(tree)}
        if item == "tasks" and self._seals is not None:
            self._seals.note(_sealed(step), meta["digest"])
        arrays = ocp.args.StandardSave(tree)
        args = ocp.args.Composite(state=arrays, meta=ocp.args.JsonSave(meta))
        manager = self._manager(item)
        with self._writing(item, step):
            if step in manager.all_steps():  # an earlier process left it unreadable
                manager.delete(step)
            # `force`, because Orbax would otherwise decide itself whether a save is due.
            manager.save(step, args=args, force=True)

    def _finish(self, item: str, step: int) -> None:
        """Waits until the save of `step` is on disk under its final name."""
        with self._writing(item, step):
            self._manager(item).wait_until_finished()
        assert step in self._manager(item).all_steps()

    def _check_seal(self, task: int) -> None:
        """A save of another run is good in itself; only the digests of the run tell it."""
        if self._seals is None:
            return
        if self._seals.holds(_sealed(task), self._meta("tasks", task)["digest"]) is False:
            path = self.folder / "tasks" / str(task)
            raise DamagedError(
                f"checkpoint {path} is not the one that this run wrote, or its digest in "
                f"{self._seals.workdir / SEALS} has changed; a good copy of that file helps, too"
            )

    def _meta(self, item: str, step: int) -> dict:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        values = self._reading(item, step, lambda m: m.restore(step, args=args))["meta"]
        try:
            kind = RunningMeta if item == "running" else Meta
            schema.from_json(kind, values, str(self.folder / item / str(step) / "meta"))
        except ValueError as error:
            raise DamagedError(f"checkpoint {error}") from None
        return values

    def _restore(self, item: str, step: int, target):
        meta = self._meta(item, step)
        # Checked here, because Orbax would fail while it reads and leave its readers open.
        stored, wanted = meta["layout"], layout(target)
        differing = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
        if differing:
            name = differing[0]
            raise DamagedError(
                f"checkpoint {self.folder / item / str(step)} holds {name} as "
                f"{stored.get(name, 'nothing')}, needed is {wanted.get(name, 'nothing')}"
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        tree = self._reading(item, step, lambda m: m.restore(step, args=args))["state"]
        # A changed byte leaves the layout as it was, so only the digest can show it.
        if digest(tree) != meta["digest"]:
            raise DamagedError(f"checkpoint {self.folder / item / str(step)} changed on disk")
        return tree

    def _reading(self, item: str, step: int, read):
        # If one process cannot read, the others must not wait for it in the next exchange.
        with hosts.together(DamagedError):
            content = self._read(item, step, read)
        stopping.check()
        return content

    def _read(self, item: str, step: int, read):
        path = self.folder / item / str(step)
        try:
            with stopping.held():
                return read(self._manager(item))
        except jax.errors.JaxRuntimeError:
            raise  # from a device, not from a file
        except Exception as error:  # Orbax and its storage raise many kinds for a torn file
            if (passing := files.may_pass(error, path)) is not None:
                raise passing from error
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            cause = error
        # Only what can be read as a whole is damaged. An `OSError` names the file of the save.
        for file in sorted(path.rglob("*")):
            if file.is_file():
                files.read_bytes(file)
        raise DamagedError(
            f"checkpoint {path} cannot be read ({type(cause).__name__}: {reason})"
        ) from cause

    @contextlib.contextmanager
    def _writing(self, item: str, step: int | None = None) -> Iterator[None]:
        """Holds a stop back; an error of Orbax inside the block becomes an `OSError`."""
        path = self.folder / item / ("" if step is None else str(step))
        try:
            with stopping.held():
                yield
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            # What Orbax has begun and does not finish is thrown away at any time from now on.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            if (passing := files.may_pass(error, path)) is not None:
                raise passing from error
            reason = files.reason(error)[:200]
            raise OSError(f"checkpoint {path} cannot be written ({reason})") from error

    def _advice(self, task: int) -> str:
        if task == 1:
            return f"no earlier one is good: delete {self.folder} to start again"
        return (
            f"the last good one is {self.folder / 'tasks' / str(task - 1)}: delete the later ones "
            "to continue from there"
        )
