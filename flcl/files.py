"""Files that are written completely or not at all: no reader ever sees half a file."""

import json
import os
import secrets
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


def read_json(path: str | Path):
    """Parsed JSON of `path`; None if there is no file. `ValueError` names a file that is bad."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): delete it") from None
