"""Runs that nothing disturbed, made once: what every trial starts from and is compared with."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny

from campaign import moments
from campaign.trial import Fault, Killed, command, succeeded

METHODS = ("funlora", "fmlora")
STARTS = ("nothing", "inside 2", "inside 3", "finished")
_PREPARING = 900  # seconds that making a run may take
_CONFIG = Path(__file__).with_name("config.py")


class Prepared:
    """The folder of a campaign: data, finished and half-finished runs, counts of moments."""

    def __init__(self, folder: Path, more_time: Callable[[float], None] = lambda seconds: None):
        self._more_time = more_time
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "six.npz"
        if not self.data.exists():
            tiny.write_data(self.data)

    def train(self, method: str, workdir: Path, *words):
        """Trains or continues a tiny run by its command."""
        return command(
            "train",
            f"--config={_CONFIG}:{method}",
            f"--config.data.source=npz:{self.data}",
            f"--workdir={workdir}",
            *words,
        )

    def at(self, method: str, start: str) -> Path | None:
        """The folder of a run at one of `STARTS`; None for nothing."""
        if start == "nothing":
            return None
        folder = self.folder / "runs" / method
        if not (folder / start).exists():
            making = folder / "making"  # renamed at the end, because this process may die
            shutil.rmtree(making, ignore_errors=True)
            with self._longer():
                self._make(method, start, making)
            making.rename(folder / start)
        return folder / start

    def copy(self, method: str, start: str, workdir: Path) -> Path:
        """Puts a run at `start` into `workdir`."""
        source = self.at(method, start)
        if source is not None:
            shutil.copytree(source, workdir, symlinks=True)
        return workdir

    def _make(self, method: str, start: str, workdir: Path) -> None:
        """A run that is never disturbed, or one that dies before it stores a task."""
        if start == "finished":
            succeeded(self.train(method, workdir))
            return
        with _dying_in(int(start.split()[1])):
            self.train(method, workdir)

    def counts(self, method: str, start: str) -> dict:
        """Calls and uses of files between `start` and the end of a run.

        {"calls": place -> function -> number, "files": number}
        """
        path = self.folder / f"counts {method} {start}.json"
        if not path.exists():
            workdir = self.folder / "counting"
            shutil.rmtree(workdir, ignore_errors=True)
            self.copy(method, start, workdir)
            uses = []
            with (
                self._longer(),
                moments.counted() as calls,
                moments.files_used(workdir, lambda *use: uses.append(use)),
            ):
                done = self.train(method, workdir)
            succeeded(done)
            self.compare(method, workdir)
            path.write_text(json.dumps({"calls": calls, "files": len(uses)}))
            shutil.rmtree(workdir)
        return json.loads(path.read_text())

    @contextlib.contextmanager
    def _longer(self):
        """What a trial makes for others, too, does not count as its time."""
        started = time.time()
        self._more_time(_PREPARING)
        yield
        self._more_time(time.time() - started - _PREPARING)

    def compare(self, method: str, workdir: Path, but: Path | None = None) -> None:
        """Raises `Fault` unless a finished run equals the undisturbed one, except the file `but`.

        Compared are the bytes of results.json, the arrays of samples and features, the digests of
        all stored tasks, and the records of metrics.jsonl without their time.
        """
        reference = self.at(method, "finished")
        for name, want in _essence(reference).items():
            if but is not None and workdir / name == but:
                continue
            path = workdir / name
            if not path.is_file():
                raise Fault(f"{name} is missing at the end")
            try:
                same = _same(_read(path), want)
            except Exception as error:
                raise Fault(f"{name} cannot be read at the end: {error!r}") from error
            if not same:
                raise Fault(f"{name} differs from that of an undisturbed run")


class _dying_in:  # noqa: N801 - used as a function
    """Inside the block a run dies before it stores `task`; both saves inside the task are there."""

    def __init__(self, task: int):
        self._task = task

    def __enter__(self):
        from flcl.runs.saved.checkpoint import Checkpoints

        self._class, self._real = Checkpoints, Checkpoints.save_task
        real, wanted = self._real, self._task

        def save(checkpoints, task, added):
            if task == wanted:
                raise Killed
            return real(checkpoints, task, added)

        Checkpoints.save_task = save

    def __exit__(self, kind, *_):
        self._class.save_task = self._real
        return kind is Killed


def _essence(workdir: Path) -> dict[str, object]:
    paths = [workdir / "results.json", workdir / "metrics.jsonl"]
    for pattern in ("samples/*.npz", "features/*.npz", "checkpoints/tasks/*/meta/metadata"):
        paths += sorted(workdir.glob(pattern))
    return {str(path.relative_to(workdir)): _read(path) for path in paths}


def _read(path: Path):
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [line.split('"time"')[0] for line in text.splitlines()]
    return json.loads(text)["digest"] if path.name == "metadata" else text


def _same(one, other) -> bool:
    return one == other
