"""One trial: its random numbers, its folder, a command as a user gives it, and how it may end."""

import contextlib
import hashlib
import io
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

EQUAL = "equal"
REPAIRED = "repaired"
LINE = "one clear line"
ACCEPTED = "accepted"
"""An unusual input that was understood: it is no error, and what was read is right."""

_LONGEST = 600  # characters of a line that a person still reads
_NOISE = ("Traceback", "Exception ignored", "Warning:", "never awaited", "core dumped")


class Fault(Exception):  # noqa: N818 - it is what a trial finds
    """A trial ended in a way that no user should see."""


class Began(BaseException):
    """The input was accepted and training would begin now; carries the experiment."""

    def __init__(self, experiment):
        super().__init__("training would begin")
        self.experiment = experiment


class Killed(BaseException):
    """The process would be dead now; no `except Exception` catches it."""


class Done(NamedTuple):
    """A finished command: its exit code and texts."""

    code: int
    out: str
    err: str

    def told(self) -> str:
        """Everything that a user saw, shortened."""
        return f"exit code {self.code}\n{self.out[-800:]}\n{self.err[-3000:]}"


class Trial:
    """Trial `number` of the campaign with `seed`: equal numbers make equal choices.

    Attributes:
      random: the source of every choice.
      folder: an empty folder of the trial; it is kept from phase 1 to phase 2.
      phase: 2 if the process died in phase 1, as it was meant to.
      prepared: runs that were never disturbed.
      notes: what was chosen, for people.
    """

    def __init__(self, seed: int, number: int, kind: str, phase: int, prepared, dying: Callable):
        self.random = random.Random(f"{seed}:{number}:{kind}")
        self.kind, self.phase, self.prepared = kind, phase, prepared
        self.folder = prepared.folder / "trial"
        if phase == 1:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.notes: list[str] = []
        self.dying = dying

    def note(self, text: str) -> None:
        """Says what was chosen."""
        self.notes.append(text)

    @property
    def workdir(self) -> Path:
        """The folder of the run."""
        return self.folder / "run"

    def pick(self, options):
        """One of `options`, in an order that does not depend on hashes."""
        return self.random.choice(list(options))


def command(program: str, *words, capture: Callable | None = None) -> Done:
    """Runs `launch/PROGRAM.py` in this process, as a user would in a new one.

    capture: makes what collects its texts; None = `captured`. `Killed` and `Began` pass through;
    everything else is the user's to see.
    """
    words = list(map(str, words))
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    kept = sys.argv, list(sys.path), sys.unraisablehook, os.getcwd()
    sys.argv = [str(ROOT / "launch" / f"{program}.py"), *words]
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        with (capture or captured)() as texts:
            code = _exit_code(sys.argv[0])
    finally:
        sys.argv, sys.path[:], sys.unraisablehook = kept[:3]
        os.chdir(kept[3])
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, *texts())


def _exit_code(path: str) -> int:
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except (Killed, Began):
        raise
    except BaseException:  # Python would print it and end
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], tuple[str, str]]]:
    """What the block writes to its two outputs, also from C++; call the result afterwards."""
    files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
    sys.stdout.flush(), sys.stderr.flush()
    saved, objects = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(os.dup(n), "wb"), encoding="utf-8", write_through=True)
        for n in (1, 2)
    )
    texts = []
    try:
        yield lambda: (texts[0], texts[1])
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.close()  # it has descriptors of its own
        sys.stdout, sys.stderr = objects
        for number, file in enumerate(files, start=1):
            os.dup2(saved[number - 1], number)
            os.close(saved[number - 1])
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
            file.close()


def one_line(done: Done, *names: str, codes: tuple[int, ...] = (2,)) -> str:
    """`LINE` if the command ended with one line that contains one of `names`; else `Fault`."""
    quiet(done)
    lines = [line for line in done.err.splitlines() if line.strip()]
    if done.code not in codes:
        raise Fault(f"exit code {done.code}, accepted are {codes}\n{done.told()}")
    if len(lines) != 1:
        raise Fault(f"{len(lines)} lines instead of one\n{done.told()}")
    if len(lines[0]) > _LONGEST:
        raise Fault(f"a line of {len(lines[0])} characters\n{done.told()}")
    if names and not any(name in lines[0] for name in names):
        raise Fault(f"the line names none of {names}\n{done.told()}")
    return LINE


def succeeded(done: Done) -> None:
    """Raises `Fault` unless the command did its work, without noise."""
    quiet(done)
    if done.code != 0:
        raise Fault(f"the command should have worked\n{done.told()}")


def quiet(done: Done) -> None:
    """Raises `Fault` for a traceback, for a library's noise and for raw control characters."""
    for word in _NOISE:
        if word in done.out + done.err:
            raise Fault(f"{word!r} was printed\n{done.told()}")
    raw = {c for c in done.out + done.err if unicodedata.category(c) == "Cc" and c not in "\n\r\t"}
    if raw:
        raise Fault(f"raw control characters {sorted(raw)!r} were printed\n{done.told()!r}")


@contextlib.contextmanager
def refusing_to_train() -> Iterator[None]:
    """Inside the block a run whose input was accepted raises `Began` instead of training."""
    from flcl.runs.experiment import Experiment

    real = Experiment.run

    def begin(self, *_, **__):
        raise Began(self)

    Experiment.run = begin
    try:
        yield
    finally:
        Experiment.run = real


@contextlib.contextmanager
def little_memory(gib: float = 6.0, grown: float = 2.0) -> Iterator[None]:
    """Limits the address space inside the block; `Fault` if the process grew by `grown` GiB."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(gib * 2**30), before[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 2**20
    if peak > grown:
        raise Fault(f"the process grew by {peak:.1f} GiB")


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file in a folder, links as their targets."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
