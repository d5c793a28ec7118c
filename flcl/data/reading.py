"""Large files of users, read piece by piece: what is damage, and what is an error of the disk."""

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from flcl import files

_BUFFER = 2**20  # bytes per read: archives are read from the first byte to the last
_LONGEST = 300  # characters of a reason


class _Watched(io.FileIO):
    """A file that remembers the error of a read.

    Libraries for archives report every error of a read as a damaged archive. An error that may
    pass, as of a network disk, must not look like damage.
    """

    def __init__(self, path: pathlib.Path):
        self.failure: OSError | None = None
        super().__init__(path)

    def readinto(self, buffer):
        with self._watch():
            return super().readinto(buffer)

    def readall(self):
        with self._watch():
            return super().readall()

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The system does not say which file it was.
            self.failure = OSError(error.errno, error.strerror, str(self.name))
            raise self.failure from error


@contextlib.contextmanager
def opened(path: pathlib.Path, name: str, complaint: str, advice: str) -> Iterator[BinaryIO]:
    """Opens a regular file; inside the block, the errors are those of `checked`.

    Errors of the file system are raised as they are, with the path.
    """
    with _Watched(files.regular(path)) as raw:
        try:
            with checked(name, complaint, advice):
                yield io.BufferedReader(raw, _BUFFER)
        except ValueError as error:
            if raw.failure is not None:
                raise raw.failure from error
            raise


@contextlib.contextmanager
def checked(name: str, complaint: str, advice: str) -> Iterator[None]:
    """Turns every error of a damaged content inside the block into one line.

    It is the `ValueError` "{name}: {complaint} ({reason}); {advice}". For a content that does not
    fit into memory, the line does not speak of damage. Unlike `files.reading`, no error may pass
    here: its text may be a stranger's, and `opened` remembers what the disk itself has said.
    """
    try:
        yield
    except MemoryError as error:
        text = f"too large for the memory of this machine ({_reason(error)})"
        raise ValueError(f"{name}: {text}") from error
    except Exception as error:  # damaged archives raise anything from EOFError to KeyError
        raise ValueError(f"{name}: {complaint} ({_reason(error)}); {advice}") from error


def _reason(error: BaseException) -> str:
    """One line that can be printed: the text of `error` may come from the damaged file."""
    text = f"there is no {error}" if isinstance(error, KeyError) else files.reason(error)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
