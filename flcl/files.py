"""Files that are written completely or not at all, and what an error of a reader means.

A reader fails for one of two reasons. An error may pass: no right to read, a failing or full disk,
too many open files, no memory, a time limit. The file may be good, so it stays where it is. All
other errors come from a file that was read and is wrong: only such a file is damaged.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# The file is not there or is no file, or a reader of wrong content asked for an impossible place.
_LASTING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EOVERFLOW,
}

# Libraries in C++ and Rust put the number of the system's error into the text of their own.
_NUMBER = re.compile(r"(?:os_error_code='|\[Errno |\[OS error |\(os error )(\d+)")

# The codes of gRPC and Abseil that say nothing about the content, for an error without a number.
_STATUS = {
    "PERMISSION_DENIED": errno.EACCES,
    "UNAUTHENTICATED": errno.EACCES,
    "RESOURCE_EXHAUSTED": errno.EAGAIN,
    "UNAVAILABLE": errno.EAGAIN,
    "ABORTED": errno.EAGAIN,
    "CANCELLED": errno.ECANCELED,
    "DEADLINE_EXCEEDED": errno.ETIMEDOUT,
}


def write(
    path: str | Path, content: bytes | str | Callable[[BinaryIO], None], *, shared: bool = False
) -> Path:
    """Writes a file under a temporary name beside it and renames it; returns its path.

    content: bytes, text (stored as UTF-8), or a function that writes into a binary file. shared:
    several processes may write the file at once; the last one to finish is kept. An `OSError`, such
    as that of a full disk, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        number = errno.EISDIR
        raise OSError(number, "a folder is in the place of this file; move it away", str(path))
    # One name for all writers would mix what two of them write at once. A new name for every write
    # would leave a file behind each time a process is killed.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4) if shared else 'tmp'}")
    try:
        with writing(path), temporary.open("wb") as file:
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


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """An error inside the block that may pass becomes an `OSError` that names `path`."""
    try:
        yield
    except Exception as error:  # a library closes its own file and then raises another error
        if (passing := may_pass(error, path)) is not None:
            raise passing from error
        raise


def write_json(path: str | Path, value) -> Path:
    """Writes `value` as `as_json` gives it; returns the path."""
    return write(path, as_json(value))


def as_json(value) -> bytes:
    """Indented JSON with sorted keys; `ValueError` for NaN and infinity."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def regular(path: str | Path) -> Path:
    """Returns the path of a regular file, or of a link to one, without opening it.

    Raises `ValueError` for a folder, a pipe, a socket or a device: opening one may wait for ever,
    and reading one may never end. A missing file raises the `OSError` of the system.
    """
    path = Path(path)
    try:
        kind = special(path.stat())
    except ValueError as error:  # a zero byte or half a character, which no file system stores
        raise ValueError(f"{str(path)!r}: no file can have this name ({error})") from None
    if kind:
        raise ValueError(f"{path}: is {kind}; a regular file is needed")
    return path


def special(status: os.stat_result) -> str:
    """What is no regular file, such as `a named pipe`; empty for a regular file."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return ""
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "a special file")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_bytes(path: str | Path) -> bytes:
    """The whole content of a regular file; see `regular`. An `OSError` always names `path`."""
    try:
        return regular(path).read_bytes()
    except (OSError, MemoryError) as error:
        # The system names the file when it cannot be opened, but not when it cannot be read.
        number = error.errno if isinstance(error, OSError) else errno.ENOMEM
        raise OSError(number, os.strerror(number), str(path)) from error


def read_json(path: str | Path):
    """Parsed JSON of `path`; None if there is no file. `ValueError` names a file that is bad."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error})") from None


@contextlib.contextmanager
def reading(path: str | Path, damaged: Callable[[str], Exception]) -> Iterator[None]:
    """Says what is wrong when a reader fails inside the block.

    An error that may pass becomes an `OSError` that names `path`. Any other `Exception` becomes
    `damaged(reason)`, where the reason is one line.
    """
    try:
        yield
    except Exception as error:  # readers raise anything from struct.error to zlib.error
        if (passing := may_pass(error, path)) is not None:
            raise passing from error
        raise damaged(reason(error)) from error


def reason(error: BaseException) -> str:
    """The text of an error in one line; the name of its class if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def may_pass(error: BaseException, path: str | Path) -> OSError | None:
    """An `OSError` that names `path` if `error` or its cause may pass; None if the file is wrong.

    Libraries wrap the error of the system: then it is a cause of `error`, a member of its group,
    or only a number or a status in its text.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if cause in seen:
            continue
        seen.append(cause)
        number = _passing_number(cause)
        if number is not None:
            return OSError(number, os.strerror(number), str(path))
        before = None if cause.__suppress_context__ else cause.__context__
        waiting += [e for e in (cause.__cause__, before) if e is not None]
        waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
    return None


def _passing_number(error: BaseException) -> int | None:
    """The number of the system for an error that may pass; None for all others."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := _NUMBER.search(str(error))):
        number = int(match[1])
    if number is not None:
        return None if number in _LASTING else number
    # Python's own classes, raised by a library without a number.
    for kind, number in (
        (PermissionError, errno.EACCES),
        (TimeoutError, errno.ETIMEDOUT),
        (ConnectionError, errno.ECONNRESET),
        (BlockingIOError, errno.EAGAIN),
    ):
        if isinstance(error, kind):
            return number
    status = str(error).split(":", 1)[0].strip()
    return _STATUS.get(status)
