"""Says which program is being compiled, and how long that took last time.

JAX compiles a program when it is called for the first time, and a person sees a bar that does not
move. The seconds of each program are kept in a small file inside the folder of the compile cache.
"""

import contextlib
import hashlib
import math
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from flcl import files

NAME = "flcl-seconds.json"
"""The file with the seconds of each program, in the folder of the compile cache."""

QUICK = 1.0
"""Seconds: of a program that took no longer last time, nothing is said."""

_MOST_BYTES, _MOST_PROGRAMS = 2**18, 500

Say = Callable[[str], None]
_listeners: list[Say | None] = []
_called: weakref.WeakKeyDictionary[object, set] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def told(say: Say | None) -> Iterator[None]:
    """Inside the block `say` gets a line for each program that is compiled; None = nobody does."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.pop()


@contextlib.contextmanager
def first_call(program, what: str, about: object, form: Hashable = None) -> Iterator[None]:
    """The block calls `program`; if this is the first time, somebody who listens is told.

    Args:
      program: the object whose first call compiles; what: its name for people.
      about: what its size depends on. Programs of the same name with equal texts `repr(about)` on
        the same kind of device are taken for the same one.
      form: the shape of its arguments, if it is compiled for several.
    """
    known = _called.get(program)
    if known is None:
        known = _called[program] = set()
    if form in known:
        yield
        return
    say = _listeners[-1] if _listeners else None
    name = name_of(what, about, form) if say else ""
    if say and (line := _line(what, last_seconds(name))):
        say(line)
    started = time.monotonic()
    yield
    known.add(form)
    if say:
        keep_seconds(name, time.monotonic() - started)


def last_seconds(name: str) -> float | None:
    """The seconds that are kept under a name; None if nothing is known."""
    return _read().get(name)


def _line(what: str, last: float | None) -> str:
    if last is None:
        return f"compiling {what}, once: seconds for a small network, minutes for a large one"
    return f"compiling {what}: {spoken(last)} last time" if last > QUICK else ""


def spoken(seconds: float) -> str:
    """Seconds for people: `31 s`, `2 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def name_of(what: str, about: object, form: Hashable = None) -> str:
    """The name under which seconds on this kind of device are kept; see `first_call`."""
    import jax  # late: the command line imports this module

    device = jax.devices()[0].device_kind
    text = repr((about, form, device, jax.device_count()))
    return f"{what} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _file() -> Path | None:
    """The file of the seconds; None without a folder of this machine for compiled programs."""
    import jax  # late: the command line imports this module

    folder = jax.config.jax_compilation_cache_dir
    return Path(folder) / NAME if folder and "://" not in str(folder) else None


def _read() -> dict[str, float]:
    """What is kept. Whatever is wrong in the file, by whomever it was written, counts as absent."""
    path = _file()
    try:
        if path is None or path.stat().st_size > _MOST_BYTES:
            return {}
        stored = files.read_json(path)
    except (OSError, ValueError):
        return {}
    entries = stored.items() if isinstance(stored, dict) else ()
    return {name: float(seconds) for name, seconds in entries if _is_time(seconds)}


def _is_time(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1e6


def keep_seconds(name: str, seconds: float) -> None:
    """Stores the seconds of a program; a folder that cannot be written is no reason to stop."""
    path = _file()
    if path is None:
        return
    known = _read()
    if len(known) >= _MOST_PROGRAMS:
        known = {}
    with contextlib.suppress(OSError):
        files.write(path, files.as_json({**known, name: round(seconds, 2)}), shared=True)
