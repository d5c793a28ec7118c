"""Named arrays in one file: written to bytes, and read with a check of every array."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flcl import files


class Kind(NamedTuple):
    """The arrays that a file needs under a name.

    Attributes:
      dtypes: the accepted kinds of values, as in `numpy.dtype.kind`: i, u, f.
      ndim: the number of axes.
    """

    dtypes: str
    ndim: int


_BOMB = 1 << 30  # bytes; a smaller archive does no harm, however well it is packed


def bomb(archive: zipfile.ZipFile, size: int) -> str:
    """What a small file of `size` bytes would do to the memory, in words; empty for all others."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked <= max(_BOMB, 100 * size):
        return ""
    return f"{size:,} bytes would unpack to {unpacked / 2**30:.3g} GiB"


def to_bytes(arrays: Mapping[str, np.ndarray], *, compressed: bool = True) -> bytes:
    """The content of an npz file."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def from_bytes(
    content: bytes, path: str | Path, kinds: Mapping[str, Kind]
) -> dict[str, np.ndarray]:
    """The arrays with the names of `kinds`; pickled objects are never loaded.

    path: the name of the file in errors. Raises `ValueError` for content that is no npz file, and
    for an array that is missing or of another kind.
    """
    with files.reading(path, lambda reason: ValueError(f"{path} is damaged ({reason})")):
        # A file with one array has no names: NumPy returns it without a container.
        stored = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(stored, np.lib.npyio.NpzFile) and (harm := bomb(stored.zip, len(content))):
            raise ValueError(f"its {harm}")
        arrays = {name: stored[name] for name in kinds}
    for name, kind in kinds.items():
        value = arrays[name]
        if value.dtype.kind not in kind.dtypes or value.ndim != kind.ndim:
            raise ValueError(
                f"{path} is damaged ({name} is {value.dtype} with {value.ndim} axes; a kind of "
                f"{' or '.join(kind.dtypes)} with {kind.ndim} is needed)"
            )
    return arrays
