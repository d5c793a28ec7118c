"""Features of a network from a file, stored in the cache of the user: real images stay the same."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from flcl import files
from flcl.data.selection import Selection

_BATCH = 256  # images that are read together to compute their digest


class Remembered:
    """Stores the features of images by a digest of their pixels.

    network: what makes the features; another one never reads them.
    """

    def __init__(self, network: str):
        self._network = network

    def __call__(
        self, images: Selection, compute: Callable[[Selection], Iterator[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """The features of `images`, batch after batch: stored ones, or what `compute` gives."""
        if jax.process_count() > 1:
            # All processes compute together, and each could have other files.
            yield from compute(images)
            return
        path = _folder() / f"{self._digest(images)}.npy"
        features = _stored(path, len(images))
        if features is not None:
            yield features
            return
        batches = []
        for batch in compute(images):
            batches.append(batch)
            yield batch
        # Without a place to write they are computed again the next time, and that is all.
        with contextlib.suppress(OSError):
            features = np.concatenate(batches)
            files.write(path, lambda file: np.save(file, features), shared=True)

    def _digest(self, images: Selection) -> str:
        digest = hashlib.sha256(f"{self._network} {jax.default_backend()}".encode())
        for start in range(0, len(images), _BATCH):
            batch = images[np.arange(start, min(start + _BATCH, len(images)))]
            digest.update(f"{batch.shape}".encode() + np.ascontiguousarray(batch).tobytes())
        return digest.hexdigest()[:32]


def _folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "flcl" / "features"


def _stored(path: pathlib.Path, count: int) -> np.ndarray | None:
    """The features [count, d] of a file; None if there is no such file, or a damaged one."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        features = np.load(path, allow_pickle=False)
        if features.ndim == 2 and len(features) == count and features.dtype == np.float32:
            return features
    return None
