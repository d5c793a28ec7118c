"""The folder of a run: its lock, and the checks of its config and data."""

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flcl import files, settings
from flcl.data.base import Begun
from flcl.data.sequence.learned import LearnedTask
from flcl.devices import hosts
from flcl.runs.saved.differences import decisive, differing_keys
from flcl.runs.saved.stored import (
    STREAM,
    History,
    earlier_results,
    read_stream,
    typed_stream,
)
from flcl.settings import bridge, formats
from flcl.storage.seals import Seals, digest

_MOST_KEYS = 6  # in one error
_GROWS = 5  # the format of the first runs whose room grows


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
    """Locks the workdir for this process; the lock ends with the process, however it ends.

    Gives a function that raises `ValueError` when the folder has been removed, renamed or replaced
    since. Whatever is written then goes to a folder that nobody has locked, or to none.

    Raises `ValueError` if the folder is not writable or another process has locked it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # "a+" does not empty the file: until the lock is ours, it contains the number of its
        # owner.
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        # The name of what is in the way: a folder above, a file in its place, the lock itself.
        where = "" if error.filename in (None, str(workdir)) else f"{error.filename}: "
        raise ValueError(f"workdir {workdir} is not writable ({where}{error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            raise ValueError(
                f"workdir {workdir} is in use by process {owner}: wait for it or choose another"
            ) from None
        except OSError as error:  # a disk that has no locks
            reason = f"{error.strerror}; it has to be on a disk with locks"
            raise ValueError(f"workdir {workdir} cannot be locked ({reason})") from None
        # Now the lock is ours. The number is only for the error of another process.
        with files.writing(workdir / ".lock"):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield lambda: _check_there(workdir, file.fileno())


@contextlib.contextmanager
def claimed(
    workdir: Path, run: settings.Run, stream: dict, seals: Seals
) -> Iterator[tuple[Callable[[], None], list[str]]]:
    """Locks the workdir and writes config and stream into it, or refuses that of another run.

    stream: the content of `stream.json`. Gives what `locked` gives, and a line for each of the two
    files that was damaged. Raises what `locked`, `check_config` and `check_stream` raise. Only the
    first process of a run does this; the others get a function that does nothing.
    """
    if not hosts.is_main():
        yield (lambda: None), []
        return
    with locked(workdir) as check_there:
        # Both checks come before the first write, so a refused folder stays as it was.
        notes = [check_config(workdir, run, seals), check_stream(workdir, stream, seals)]
        config = formats.to_store(run)
        seals.note(formats.NAME, formats.identity(config))
        files.write_json(workdir / formats.NAME, config)
        seals.write(STREAM, files.as_json(stream))
        yield check_there, list(filter(None, notes))


def _check_there(workdir: Path, lock: int) -> None:
    try:
        # The same file, not only one of that name: a folder may have been put in its place.
        there = os.path.samestat(os.stat(workdir / ".lock"), os.fstat(lock))
    except (FileNotFoundError, NotADirectoryError):
        there = False
    if not there:
        raise ValueError(
            f"workdir {workdir} was removed or replaced while the run used it: bring it back and "
            "run the same command, or start again in a new workdir"
        )


def check_config(workdir: Path, run: settings.Run, seals: Seals) -> str:
    """Refuses a workdir with saves of a run with another config.

    Keys that change no result may differ: `free` in `settings.keys.key`. A `config.json` that is
    damaged or has changed may be written again if `run` is what was stored there. Returns a line
    that says so, or an empty string.
    """
    path = workdir / formats.NAME
    same = seals.holds(formats.NAME, formats.identity(formats.to_store(run)))
    try:
        stored = formats.read(workdir)
    except formats.NewerError:
        raise
    except ValueError:
        if has_saves(workdir) and not same:
            raise
        return f"{path} is damaged; now it is written again"
    if not has_saves(workdir):
        return ""
    if stored is None:
        if same is False:
            raise ValueError(
                f"{path} is missing, and workdir {workdir} holds a run of another config: choose "
                "another workdir, or use the config of that run"
            )
        return ""
    wanted = bridge.as_dict(run)
    # Before format 6 a run did not store it.
    if stored.get("drift", {}).get("sha256") == "" and "drift" in wanted:
        wanted["drift"]["sha256"] = ""
    lines = differing_keys(decisive(stored), decisive(wanted))
    # If the method differs, nearly every key differs.
    lines = [line for line in lines if line.startswith("method:")] or lines
    if len(lines) > _MOST_KEYS:
        lines = [*lines[:_MOST_KEYS], f"and {len(lines) - _MOST_KEYS} more"]
    if lines and same:
        return f"{path} has changed since the run wrote it; now it is written again"
    if lines:
        raise ValueError(
            f"workdir {workdir} holds a run of another config ({'; '.join(lines)}): "
            "choose another workdir, or use the config of that run"
        )


def check_stream(workdir: Path, stream: dict, seals: Seals) -> str:
    """Refuses a workdir whose data no longer gives the same classes, image counts and tasks.

    A damaged or changed `stream.json` may be written again if `stream` is what was stored there.
    Returns a line that says so, or an empty string.
    """
    path = workdir / STREAM
    same = seals.holds(STREAM, digest(files.as_json(stream)))
    try:
        stored = read_stream(workdir)
    except ValueError as error:
        if has_saves(workdir) and not same:
            raise ValueError(
                f"{error}: bring a good copy back, or delete it to have it made from the data"
            ) from None
        return f"{error}; now it is written again"
    if not has_saves(workdir) or stored == stream:
        return ""
    if stored is None:
        if same is False:
            raise ValueError(
                f"{path} is missing, and workdir {workdir} was trained on other data or tasks: "
                "bring the data back, or choose another workdir"
            )
        return ""
    if same:
        return f"{path} has changed since the run wrote it; now it is written again"
    before, now = _comparable(stored), _comparable(stream)
    if "tasks" not in before:  # a run of an older version
        now.pop("tasks")
    differing = [name for name in now if before.get(name) != now[name]]
    # The entries of tasks tell the same, once more.
    differing = [name for name in differing if name != "tasks"] or differing
    if not differing:
        return ""
    raise ValueError(
        f"workdir {workdir} was trained on other data or tasks ({', '.join(differing)} of "
        "stream.json differ): bring the data back, or choose another workdir"
    )


def _comparable(stream: dict) -> dict:
    """A `stream.json` without the places of the planned source, which may move."""
    if "tasks" not in stream:
        return dict(stream)
    tasks = [
        {k: v for k, v in task.items() if k != "source" or "learned" in task}
        for task in stream["tasks"]
    ]
    return {**stream, "tasks": tasks}


def begun(workdir: Path) -> Begun | None:
    """How a run with saves chose its images, and its room; None = there is no such run.

    What is wrong with a damaged `stream.json` is said by `check_stream`; here it counts as absent.
    Every process calls this function; the first one reads, and the others get the same.
    """

    def read() -> dict | None:
        chosen = _chosen(workdir)
        return chosen and dataclasses.asdict(chosen)

    values = hosts.read_by_main(read)
    return values and Begun(tuple(values["skipped"]), values["split_rule"], values["room"])


def _chosen(workdir: Path) -> Begun | None:
    if not has_saves(workdir):
        return None
    try:
        stored = files.read_json(workdir / STREAM)
        if stored is None and _is_older(workdir):
            return Begun(room=dict.fromkeys(("capacity", "slots", "rows"), 0))
    except ValueError:
        return None
    if not isinstance(stored, dict):
        return None
    skipped = stored.get("skipped", {"files": []})
    names = skipped.get("files") if isinstance(skipped, dict) else None
    rule = stored.get("split", "")
    if not isinstance(names, list) or not all(isinstance(text, str) for text in [*names, rule]):
        return None
    return Begun(tuple(names), rule, _room(stored.get("stream")))


def _is_older(workdir: Path) -> bool:
    """Whether a version made the run whose room did not grow; it had a row for every class."""
    config = formats.stored_keys(workdir)
    return config is not None and config.get("format", 1) < _GROWS


def _room(stream) -> dict[str, int] | None:
    """The room of a run by the entry `stream`; None if it cannot be read."""
    if not isinstance(stream, dict) or not isinstance(stream.get("capacity"), int):
        return None
    room = {name: stream.get(name, 0) for name in ("capacity", "slots", "rows")}
    return room if all(isinstance(value, int) for value in room.values()) else None


def finished(workdir: Path) -> int:
    """The number of stored tasks of a run. Every process calls this function and gets the same."""
    folder = workdir / "checkpoints" / "tasks"
    return hosts.read_by_main(lambda: sum(path.name.isdecimal() for path in folder.glob("[0-9]*")))


def history(workdir: Path, loaded: Mapping[int, LearnedTask]) -> History | None:
    """What a workdir says of tasks that were not planned; None = there are none.

    A damaged `stream.json` counts as absent: `check_stream` says what is wrong with it. Every
    process calls this function; the first one reads, and the others get the same.
    """

    def read() -> dict | None:
        with contextlib.suppress(ValueError, NotADirectoryError):
            return read_stream(workdir)
        return None

    values = hosts.read_by_main(read)
    stored = typed_stream(values) if values else None
    if stored is None or not any(task.learned for task in stored.tasks):
        return None
    return History(stored, finished(workdir), loaded)


def origin(workdir: Path) -> dict:
    """What `results.json` says of the origin of pre-trained weights; empty if it says nothing.

    Every process calls this function; the first one reads, and the others get the same.
    """
    seals = Seals(workdir, writes=False)
    results = hosts.read_by_main(lambda: earlier_results(workdir, seals)[0])
    weights = (results or {}).get("weights") or {}
    return {name: weights[name] for name in ("layout", "ignored") if name in weights}


def has_saves(workdir: Path, folders: Sequence[str] = ("tasks", "running", "judge")) -> bool:
    """Whether trained arrays are stored; until then a run may start again with other settings.

    folders: the kinds of saves that count.
    """
    return any(any((workdir / "checkpoints" / name).glob("[0-9]*")) for name in folders)
