"""Classifies any number of image files: a batch at a time is in memory, and bad files are told."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from flcl import files, hints, settings
from flcl.data.arrays.user import from_user


class FileAnswer(NamedTuple):
    """The answer for one image file.

    Attributes:
      file: the path, as it was given.
      name: the name of the most probable class.
      score: its probability, from 0 to 1.
      second: the name of the second most probable class; empty if only one class is learned.
      second_score: its probability; 0 if only one class is learned.
    """

    file: str
    name: str
    score: float
    second: str
    second_score: float


Skipped = Callable[[str, str], None]
"""It is called with the path of a file that is left out, and the reason in one line."""


def listed(paths: Iterable[str | os.PathLike] | str | os.PathLike) -> list[str]:
    """The files of `paths`; in the place of a folder all files in it, at any depth, sorted.

    Hidden files and folders are left out. Raises `ValueError` for what is no path, for a path that
    does not exist, for a folder without files and if nothing is given.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    elif not isinstance(paths, Iterable) or isinstance(paths, bytes):
        raise ValueError(f"images={hints.quoted(paths)}: paths of files or folders are needed")
    found: list[str] = []
    for given in paths:
        path = os.fspath(given) if isinstance(given, os.PathLike) else given
        if not isinstance(path, str):
            raise ValueError(
                f"images: {hints.quoted(given)} is no path; `classify` takes pixels and encoded "
                "images"
            )
        if not os.path.isdir(path):
            if not os.path.exists(path):
                raise ValueError(f"images={path!r}: there is no such file or folder")
            found.append(path)
            continue
        inside = list(_files_in(path))
        if not inside:
            raise ValueError(f"images={path!r}: there are no files in this folder")
        found += inside
    if not found:
        raise ValueError("images: none were given; at least one is needed")
    return found


def _files_in(folder: str) -> Iterator[str]:
    def complain(error: OSError) -> None:
        raise error  # or a folder that may not be read would be left out without a word

    for place, folders, names in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, n) for n in sorted(names) if not n.startswith("."))


def batches(
    paths: Sequence[str], size: int, data: settings.Data, threads: int, skipped: Skipped | None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """The readable ones among `size` files after the other: paths [n], pixels uint8 [n, H, W, C].

    The next files are decoded by `threads` threads while a batch is used. skipped: told of every
    file that is no readable image; None = the first one raises its error.
    """

    def read(path: str) -> np.ndarray | Exception:
        try:
            return from_user(path, data)
        except (ValueError, OSError) as error:
            return error

    with ThreadPoolExecutor(max(threads, 1), "decode") as pool:
        begun: list = []
        try:
            for start in range(0, len(paths), size):
                group = paths[start : start + size]
                begun.append((group, [pool.submit(read, path) for path in group]))
                if len(begun) == 2:
                    yield _readable(*begun.pop(0), skipped)
            yield from (_readable(*each, skipped) for each in begun)
        finally:  # after an error, what has not started is not worth its time
            pool.shutdown(cancel_futures=True)


def _readable(
    group: Sequence[str], decoded: Sequence, skipped: Skipped | None
) -> tuple[list[str], np.ndarray]:
    paths, pixels = [], []
    for path, future in zip(group, decoded, strict=True):
        image = future.result()
        if not isinstance(image, Exception):
            paths.append(path)
            pixels.append(image)
        elif skipped is None:
            raise image
        else:
            skipped(path, _reason(image))
    return paths, np.concatenate(pixels) if pixels else np.empty(0, np.uint8)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason is None and isinstance(error, OSError):
        reason = error.strerror
    return reason or files.reason(error)


def answers(
    paths: Sequence[str], probabilities: np.ndarray, names: Sequence[str]
) -> Iterator[FileAnswer]:
    """The two most probable classes of each file. probabilities: [n, K], 0 = not learned."""
    for path, row in zip(paths, probabilities, strict=True):
        first, *others = np.argsort(-row, kind="stable")[:2]
        second, score = (names[others[0]], float(row[others[0]])) if others else ("", 0.0)
        # A class that is not learned is no answer.
        yield FileAnswer(path, names[first], float(row[first]), second if score else "", score)
