"""The cells of a sweep, one after the other, each in a process of its own."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import flcl
from flcl import called, hints, stopping
from flcl.shown import shown
from flcl.storage import foreign
from flcl.sweep.cells import Cell

LOG = "sweep.log"
"""The file in the folder of a cell with all that its process printed."""

_POLL = 0.1  # seconds between two looks at the process of a cell
_LOOK = 1.0  # seconds between two looks at the cells of another sweep


class Failure(NamedTuple):
    """A cell that did not finish, and its error in one line."""

    cell: Cell
    error: str


def command(cell: Cell) -> str:
    """The shell command that trains a cell, or continues it."""
    return f"{called.program('train')} {shlex.join(cell.words)}"


def run(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Failure]:
    """Trains all cells that are not finished; returns those that failed.

    A crash of one cell does not end the others. A cell that another sweep trains is left to it: two
    sweeps with one folder share the cells, and each ends when all are done. say: gets a line when a
    cell begins and when it ends, with the time that is left: the mean of the cells that ran, for
    each that waits. After a signal the cell is stopped, which saves, and `StoppedError` is raised.
    """
    waiting = [cell for cell in cells if cell.state() != "finished"]
    finished, seconds, failures = len(cells) - len(waiting), [], []
    if finished:
        say(f"{finished} of {len(cells)} cells are finished already")
    while waiting:
        cell, log, error = _next(waiting, say)
        waiting.remove(cell)
        place = f"[{len(cells) - len(waiting)}/{len(cells)}]"
        if log is None:
            failures.append(Failure(cell, error))
            say(f"{place} {cell.name}: {error}")
            continue
        with log:
            if cell.state() == "finished":
                say(f"{place} {cell.name}: finished by another process")
                continue
            say(f"{place} {cell.name}")
            began = time.monotonic()
            error = _train(cell, log)
        seconds.append(time.monotonic() - began)
        if error:
            failures.append(Failure(cell, error))
        left = len(waiting) * sum(seconds) / len(seconds)
        rest = f", {len(waiting)} to go, about {_span(left)}" if left else ""
        say(f"    {error or 'finished'} after {_span(seconds[-1])}{rest}")
    return failures


def _next(waiting: Sequence[Cell], say: Callable[[str], None]) -> tuple[Cell, BinaryIO | None, str]:
    """The first cell that no other process trains, and its log; waits if there is none.

    Instead of the log there may be an error: the folder cannot be used.
    """
    told = False
    while True:
        for cell in waiting:
            try:
                log = _locked_log(cell)
            except (OSError, ValueError) as error:
                return cell, None, shown(f"error: {hints.brief(str(error), most=400)}")
            if log:
                return cell, log, ""
        if not told:
            say(f"waiting for another process, which trains {', '.join(c.name for c in waiting)}")
            told = True
        time.sleep(_LOOK)
        stopping.check()


def _locked_log(cell: Cell) -> BinaryIO | None:
    """The log of a cell, locked for this process and for the one that trains; None if in use.

    The process that trains inherits the lock. So a cell stays locked if the sweep alone is killed.
    Raises `OSError` or `ValueError` for a folder that cannot be used.
    """
    foreign.check_folder(cell.workdir)
    cell.workdir.mkdir(parents=True, exist_ok=True)
    log = (cell.workdir / LOG).open("ab")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        return None
    except OSError:  # a disk that has no locks: the run says so
        pass
    return log


def _train(cell: Cell, log: BinaryIO) -> str:
    """Trains a cell in a process of its own; returns its error, empty if it finished."""
    # -P: a file of the user that is called like a library is not imported.
    words = [sys.executable, "-P", "-m", "flcl", "train"]
    library = str(Path(flcl.__file__).parents[1])
    before = os.environ.get("PYTHONPATH")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [library, before]))}
    start = log.seek(0, os.SEEK_END)
    code = _wait([*words, *cell.words], log, env)
    stopping.check()
    if code == 0 and cell.state() == "finished":
        return ""
    return _error(cell.workdir / LOG, start, code)


def _wait(words: list[str], output, env: dict[str, str]) -> int:
    """Runs a process to its end; a signal that asks this process to stop is passed on to it."""
    # Held: nothing may be raised between the start of the process and the loop that ends it.
    with stopping.held():
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
        )
        told = False
        while child.poll() is None:
            time.sleep(_POLL)
            if stopping.received() and not told:
                child.terminate()
                told = True
    return child.returncode


def _error(log: Path, start: int, code: int) -> str:
    """The last error in what a process added to a log; else how the process ended."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if line.startswith("error")]
    if told:
        return shown(hints.brief(told[-1], most=400))
    if code < 0:
        known = -code in set(signal.Signals)
        return f"error: ended by {signal.Signals(-code).name if known else f'signal {-code}'}"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
    return shown(hints.brief(f"error: exit code {code}: {last}", most=400))


def _span(seconds: float) -> str:
    """A time for people: `48 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
