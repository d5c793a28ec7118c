"""The members of official archives: how they are listed and read, and which names they may have."""

import contextlib
import pathlib
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from flcl.data import reading

AGAIN = "fetch the official archive again"
_DAMAGED = "damaged or not the official file"
_LARGEST = 2**30  # bytes of a member that are read; the largest official one has 0.15 GiB


def opened(path: pathlib.Path) -> contextlib.AbstractContextManager[BinaryIO]:
    """Opens an official file; see `flcl.data.reading.opened` for the errors."""
    return reading.opened(path, str(path), _DAMAGED, AGAIN)


def checked(path: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """The same errors as of `opened`, for content of `path` that was read before."""
    return reading.checked(str(path), _DAMAGED, AGAIN)


def tar_files(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Name and header of each regular file of a tar archive, in its order."""
    for member in archive:
        # With a negative size, some versions of Python read the same member for ever.
        if member.size < 0:
            raise ValueError(f"{member.name} has a negative size")
        if member.isfile():
            yield member.name.removeprefix("./"), member


def read(archive: tarfile.TarFile | zipfile.ZipFile, member: tarfile.TarInfo | str) -> bytes:
    """The content of a member; `ValueError` for one that is far too large, before it is read."""
    if isinstance(archive, zipfile.ZipFile):
        check_size(archive.getinfo(member).file_size)
        return archive.read(member)
    check_size(member.size)
    return archive.extractfile(member).read()


def check_size(size: int) -> None:
    """`ValueError` for more bytes than any official file has."""
    # A few megabytes of an archive can hold terabytes of zeros.
    if size > _LARGEST:
        raise ValueError(f"{size} bytes are announced; official files have less than {_LARGEST}")


def class_names(path: pathlib.Path, names: Sequence[str]) -> tuple[str, ...]:
    """The class names of an archive; `ValueError` for values that are no names, and for equal ones.

    TFDS stores one name in each line, so a name cannot contain the end of a line.
    """
    with checked(path):
        for name in names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise ValueError(f"{name!r} is no class name")
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        return tuple(names)
