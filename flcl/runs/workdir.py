"""The folder of a run: its lock, and the checks of its config and data."""

import contextlib
import fcntl
import os
from pathlib import Path

from flcl import files, settings
from flcl.settings import bridge, formats

_MOST_KEYS = 6  # in one error


@contextlib.contextmanager
def locked(workdir: Path):
    """Locks the workdir for this process; the lock ends with the process, however it ends.

    Raises `ValueError` if the folder is not writable or another process has locked it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # "a+" does not empty the file: until the lock is ours, it contains the number of its
        # owner.
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"workdir {workdir} is not writable ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ValueError(
                f"workdir {workdir} is in use by process {owner}: wait for it or choose another"
            ) from None
        # Now the lock is ours. The number is only for the error of another process.
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_config(workdir: Path, run: settings.Run) -> None:
    """Refuses a workdir with saves of a run with another config.

    Keys that change no result may differ: `free` in `settings.keys.key`.
    """
    stored = formats.read(workdir)
    if stored is None or not has_saves(workdir):
        return
    lines = bridge.differing_keys(bridge.decisive(stored), bridge.decisive(bridge.as_dict(run)))
    # If the method differs, nearly every key differs.
    lines = [line for line in lines if line.startswith("method:")] or lines
    if len(lines) > _MOST_KEYS:
        lines = [*lines[:_MOST_KEYS], f"and {len(lines) - _MOST_KEYS} more"]
    if lines:
        raise ValueError(
            f"workdir {workdir} holds a run of another config ({'; '.join(lines)}): "
            "choose another workdir, or use the config of that run"
        )


def check_stream(workdir: Path, stream: dict) -> None:
    """Refuses a workdir whose data no longer gives the same classes, image counts and tasks."""
    stored = files.read_json(workdir / "stream.json")
    if stored is not None and stored != stream and has_saves(workdir):
        differing = [name for name in stream if stored.get(name) != stream[name]]
        raise ValueError(
            f"workdir {workdir} was trained on other data or tasks ({', '.join(differing)} of "
            "stream.json differ): bring the data back, or choose another workdir"
        )


def left_out(workdir: Path) -> list[str] | None:
    """The images that a run with saves leaves out, by name; None = there is no such run.

    What is wrong with a damaged `stream.json` is said by `check_stream`; here it counts as absent.
    """
    if not has_saves(workdir):
        return None
    try:
        stored = files.read_json(workdir / "stream.json")
    except ValueError:
        return None
    if not isinstance(stored, dict):
        return None
    skipped = stored.get("skipped", {"files": []})
    names = skipped.get("files") if isinstance(skipped, dict) else None
    valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if valid else None


def has_saves(workdir: Path) -> bool:
    """Whether trained arrays are stored; until then a run may start again with other settings."""
    folders = ("tasks", "running", "judge")
    return any(any((workdir / "checkpoints" / name).glob("[0-9]*")) for name in folders)
