"""The folder a run leaves behind: its config, its lock and its JSON files, always written whole."""

import contextlib
import fcntl
import json
import os
from pathlib import Path

from flcl import config, settings


def write_json(path: Path, value) -> None:
    """Writes `value` as JSON by renaming a finished file, so no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path):
    """Parsed JSON of `path`, None without such a file; raises `ValueError` naming a bad one."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): delete it") from None


@contextlib.contextmanager
def locked(workdir: Path):
    """Holds the workdir for this process; the lock ends with the process, however it ends.

    Raises `ValueError` when the folder cannot be written or another process holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"workdir {workdir} is not writable ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ValueError(
                f"workdir {workdir} is in use by process {owner}: wait for it or choose another"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_config(workdir: Path, run: settings.GeneratorRun) -> None:
    """Refuses a workdir whose stored config differs; keys of `runtime` may differ."""
    stored = read_json(workdir / "config.json")
    if stored is None:
        return
    lines = config.differing_keys(_fixed(stored), _fixed(config.as_dict(run)))
    if lines:
        raise ValueError(
            f"workdir {workdir} holds a run of another config ({'; '.join(lines)}): "
            "choose another workdir, or use the config of that run"
        )


def check_stream(workdir: Path, stream: dict) -> None:
    """Refuses a workdir whose data no longer gives the same classes and tasks."""
    stored = read_json(workdir / "stream.json")
    if stored is not None and stored["fingerprint"] != stream["fingerprint"]:
        raise ValueError(
            f"workdir {workdir} was trained on other classes or tasks "
            f"(stream {stored['fingerprint'][:12]}, now {stream['fingerprint'][:12]}): "
            "has the data changed?"
        )


def _fixed(values: dict) -> dict:
    return {name: value for name, value in values.items() if name != "runtime"}
