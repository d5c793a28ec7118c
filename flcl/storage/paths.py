"""Paths that a user writes: on this machine, with `~` for the home folder."""

import os
import re
from pathlib import Path

_LONGEST = 255  # bytes of a name, on nearly every file system


def local(text: str | os.PathLike, name: str) -> Path:
    """The path in `text`, with `~` and `~user` expanded.

    name: what the path is for, such as `workdir`. Raises `ValueError` for an empty text, for an
    address such as `gs://bucket/run`, for an unknown home folder and for a text that is no file
    name or has a name that is too long.
    """
    if isinstance(text, os.PathLike):
        text = os.fspath(text)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"{name}={text!r}: a path is needed, such as runs/NAME")
    # `Path` joins the two slashes of an address, so one is enough.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"{name}={text!r}: an address, and a path on this machine is needed, because files are "
            "locked and renamed there; mount the bucket or share, and name the folder"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{name}={text!r}: not UTF-8, or the locale is not: set LC_ALL=C.UTF-8"
        ) from None
    longest = max(map(len, os.fsencode(text).split(b"/")))
    if longest > _LONGEST:
        raise ValueError(
            f"{name}={text!r}: has a name of {longest} bytes; a file system stores up to {_LONGEST}"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{name}={text!r}: there is no such home folder; write the whole path"
        ) from None


def folder(text: str | os.PathLike, name: str) -> Path:
    """The path of a folder that exists or is made later; raises `ValueError` as `local`, too.

    It raises it also for a path at which there is something else.
    """
    path = local(text, name)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name}={text}: is a file, and a folder is needed")
    return path
