"""Files that are written completely or not at all: no reader ever sees half a file."""

import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write(
    path: str | Path, content: bytes | str | Callable[[BinaryIO], None], *, shared: bool = False
) -> Path:
    """Writes a file under a temporary name beside it and renames it; returns its path.

    content: bytes, text (stored as UTF-8), or a function that writes into a binary file. shared:
    several processes may write the file at once; the last one to finish is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for all writers would mix what two of them write at once. A new name for every write
    # would leave a file behind each time a process is killed.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4) if shared else 'tmp'}")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # the content must reach the disk before the name
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, value) -> Path:
    """Writes `value` as indented JSON with sorted keys; NaN and infinity are refused."""
    return write(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def regular(path: str | Path) -> Path:
    """Returns the path of a regular file, or of a link to one, without opening it.

    Raises `ValueError` for a folder, a pipe, a socket or a device: opening one may wait for ever,
    and reading one may never end. A missing file raises the `OSError` of the system.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte or half a character, which no file system stores
        raise ValueError(f"{str(path)!r}: no file can have this name ({error})") from None
    if not stat.S_ISREG(mode):
        kind = next((word for is_kind, word in _KINDS if is_kind(mode)), "a special file")
        raise ValueError(f"{path}: is {kind}; a regular file is needed")
    return path


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_json(path: str | Path):
    """Parsed JSON of `path`; None if there is no file. `ValueError` names a file that is bad."""
    try:
        content = regular(path).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): delete it") from None
