"""Moments of a run: the n-th call of a function, or the n-th use of a file.

`sys.monitoring` counts the calls, so no function is named here and none has to be changed. It needs
Python 3.12.
"""

import builtins
import contextlib
import errno
import io
import os
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.trial import Killed

_TOOL = 3  # a free number of `sys.monitoring`

# Where a stop hurts: what happens at such a moment -> parts of the paths of its code.
PLACES = {
    "saves": ("flcl/runs/saved/checkpoint", "flcl/files", "orbax/checkpoint"),
    "reads": ("flcl/settings/", "flcl/runs/", "flcl/data/", "/json/", "numpy/lib/_npyio"),
    "evaluation": ("flcl/evaluate/", "flcl/heads/", "flcl/metrics/"),
    "reports": ("flcl/report/", "tensorboardX/", "matplotlib/backends/backend_agg"),
    "training": ("flcl/training/", "flcl/methods/", "flcl/ops/", "flcl/devices/"),
}


def _watch(called: Callable) -> None:
    events = sys.monitoring.events.PY_START
    sys.monitoring.use_tool_id(_TOOL, "campaign")
    sys.monitoring.register_callback(_TOOL, events, called)
    sys.monitoring.restart_events()
    sys.monitoring.set_events(_TOOL, events)


def _unwatch() -> None:
    sys.monitoring.set_events(_TOOL, 0)
    sys.monitoring.register_callback(_TOOL, sys.monitoring.events.PY_START, None)
    sys.monitoring.free_tool_id(_TOOL)


def _name(code) -> str:
    return f"{'/'.join(Path(code.co_filename).parts[-3:])}:{code.co_qualname}"


def _place(code) -> str | None:
    for place, parts in PLACES.items():
        if any(part in code.co_filename for part in parts):
            return place
    return None


@contextlib.contextmanager
def counted() -> Iterator[dict[str, Counter]]:
    """Counts the calls of the main thread inside the block: place -> function -> calls."""
    counts = {place: Counter() for place in PLACES}
    main = threading.get_ident()

    def called(code, _offset):
        place = _place(code)
        if place is None:
            return sys.monitoring.DISABLE
        if threading.get_ident() == main:
            counts[place][_name(code)] += 1
        return None

    _watch(called)
    try:
        yield counts
    finally:
        _unwatch()


@contextlib.contextmanager
def at(function: str, call: int, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` when the main thread enters `function` for the `call`-th time."""
    left, main = [call], threading.get_ident()

    def called(code, _offset):
        if _place(code) is None or _name(code) != function:
            return sys.monitoring.DISABLE
        if threading.get_ident() == main:
            left[0] -= 1
            if left[0] == 0:
                act()
        return None

    _watch(called)
    try:
        yield
    finally:
        _unwatch()


def die() -> None:
    """As `kill -9` from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def end() -> None:
    """As `die`, in a process that has to live on."""
    raise Killed


# Every way to a file that the library and its tools take in Python.
_USES = (
    (builtins, "open"),
    (io, "open"),
    (os, "open"),
    (os, "replace"),
    (os, "rename"),
    (os, "fsync"),
    (os, "mkdir"),
    (os, "scandir"),
    (os, "unlink"),
)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENOMEM)


@contextlib.contextmanager
def files_used(folder: Path, act: Callable[[str, object], None]) -> Iterator[None]:
    """Calls `act(what, path)` before every use of a file in `folder`."""
    real = [(module, name, getattr(module, name)) for module, name in _USES]

    def wrapped(name, function):
        def call(path, *args, **kwargs):
            if _inside(path, folder):
                act(name, path)
            return function(path, *args, **kwargs)

        return call

    for module, name, function in real:
        setattr(module, name, wrapped(name, function))
    try:
        yield
    finally:
        for module, name, function in real:
            setattr(module, name, function)


def _inside(path, folder: Path) -> bool:
    try:
        # A number is an open file.
        text = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
    except (TypeError, OSError):
        return False
    return os.fsdecode(text).startswith(str(folder))


@contextlib.contextmanager
def failing(folder: Path, use: int, number: int, lasting: bool) -> Iterator[list[str]]:
    """The `use`-th use of a file in `folder` fails with error `number`; all later ones if lasting.

    Returns the paths that failed.
    """
    left, failed = [use], []

    def act(_, path):
        left[0] -= 1
        if left[0] == 0 or (lasting and left[0] < 0):
            failed.append(str(path))
            raise OSError(number, os.strerror(number), str(path))

    with files_used(folder, act):
        yield failed


@contextlib.contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    """A limit of the system inside the block, such as on the size of a file."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)
