"""A folder from somebody else is data: nothing in it may lead a program to another place."""

import os
from pathlib import Path

from flcl import files

_ADVICE = "put a plain copy of the run into another folder and use that"


def check_folder(folder: str | Path) -> None:
    """Refuses a folder that has anything but files and folders of its own in it.

    Programs write, append and delete in a workdir. A link in it would make them do so elsewhere,
    and a pipe or a device would let them wait for ever. The folder itself may be a link, because
    the user named it. A link to a file inside is harmless and stays. Nothing is opened.

    Raises `ValueError` with the name of a link that leads out of the folder or to a folder, and of
    an entry that is neither a file nor a folder.
    """
    root = os.path.realpath(folder)
    waiting = [os.fspath(folder)] if os.path.isdir(folder) else []
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if reason := _objection(entry, root):
                        raise ValueError(f"{entry.path} {reason}: {_ADVICE}")
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        # A program that may not list a folder cannot follow anything in it, and a folder may vanish
        # while another process works here.
        except (PermissionError, FileNotFoundError):
            continue


def _objection(entry: os.DirEntry, root: str) -> str:
    """What is wrong with an entry of the folder `root`; empty if nothing is."""
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if os.path.commonpath([root, target]) != root:
            return "is a symbolic link that leads out of the workdir"
        if os.path.isdir(target) or _written_in_place(entry.name):
            return "is a symbolic link, and a program would write through it"
        return ""
    if entry.is_dir(follow_symlinks=False):
        return ""
    try:
        state = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ""
    if files.special(state):
        return "is neither a file nor a folder"
    if state.st_nlink > 1 and _written_in_place(entry.name):
        return "is also a file elsewhere (a hard link)"
    return ""


def _written_in_place(name: str) -> bool:
    """Whether a file is not replaced by a new one but changed: the lock, metrics, what is new."""
    named = name in (".lock", "metrics.jsonl", "sweep.log")
    return named or (name.startswith(".") and name.endswith(".tmp"))
