"""Remembers which images were checked, so that the next run does not read them all again."""

import contextlib
import hashlib
import os
import pathlib

import numpy as np
import PIL

from flcl import files, settings
from flcl.data.encoded.lazy import Encoded

HEADER = np.uint64(1)
"""The digest of an image of which only the header was read."""


class Remembered:
    """The sound images of a source by their keys, and a digest of the content of each.

    A key is a hash of the name of an image, its size and the time of its last change. The keys are
    stored in the cache folder of the user, because the images may be on a disk that is read only.
    Images that are not sound are not stored: they are looked at again each time.
    """

    def __init__(self, encoded: Encoded, data: settings.Data):
        self._encoded = encoded
        # Another Pillow may refuse other images. Without `resize` the size decides, too.
        self._salt = f"{PIL.__version__} {0 if data.resize else data.image_size}"
        place = getattr(encoded, "root", None)
        where = encoded.where if place is None else str(pathlib.Path(place).resolve())
        self._path = _folder() / f"{hashlib.sha256(where.encode()).hexdigest()[:24]}.npy"
        self._known = _stored(self._path)

    def key(self, position: int) -> np.uint64:
        """The key of an image now."""
        name = self._encoded.names[position]
        return hashed(f"{self._salt} {name} {self._encoded.state(position)}".encode())

    def digests(self, keys: np.ndarray) -> np.ndarray:
        """The stored digest of each of `keys`, uint64 [N]; 0 = not known."""
        if not len(self._known):
            return np.zeros(len(keys), np.uint64)
        places = np.minimum(np.searchsorted(self._known[:, 0], keys), len(self._known) - 1)
        known = self._known[places]
        return np.where(known[:, 0] == keys, known[:, 1], 0)

    def store(self, keys: np.ndarray, digests: np.ndarray) -> None:
        """Adds images with a digest that is not 0 to the file."""
        sound = digests != 0
        new = np.stack([keys[sound], digests[sound]], axis=1)
        # The new ones first: `unique` keeps the first row of a key.
        rows = np.concatenate([new, _stored(self._path)])
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        # Without a place to write, every run checks again, and that is all.
        with contextlib.suppress(OSError):
            files.write(self._path, lambda file: np.save(file, rows), shared=True)


def hashed(content: bytes) -> np.uint64:
    """A digest of `content` that is neither 0 nor `HEADER`."""
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return np.uint64(max(int.from_bytes(digest, "big"), 2))


def _folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "flcl" / "checked"


def _stored(path: pathlib.Path) -> np.ndarray:
    """Keys and digests, uint64 [N, 2], ascending by key; none if there is no such file."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        rows = np.load(path, allow_pickle=False)
        if rows.ndim == 2 and rows.shape[1] == 2 and rows.dtype == np.uint64:
            return rows[np.argsort(rows[:, 0], kind="stable")]
    return np.zeros((0, 2), np.uint64)
