"""Images in files or records that are decoded on demand, and can be checked before that."""

import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from flcl import files, settings
from flcl.data import images


class Encoded(Protocol):
    """Encoded images of a source; several threads may use it.

    Attributes:
      where: the source in messages, such as `folder:PATH`.
      names: the name of each image in the source, [N].
    """

    where: str
    names: Sequence[str]

    def read(self, positions: list[int]) -> Iterator[bytes]:
        """The content of images, as encoded. An error comes with the image that causes it."""

    def open(self, position: int) -> BinaryIO:
        """One image for a reader that needs only its first bytes."""

    def state(self, position: int) -> str:
        """A text that changes when the content changes, without the content being read."""


class ImageFiles:
    """Image files; `names` are their paths relative to `root`."""

    def __init__(self, where: str, root: pathlib.Path, names: Sequence[str]):
        self.where, self.root, self.names = where, root, names

    def read(self, positions: list[int]) -> Iterator[bytes]:
        """The content of each file; `UnreadableError` names a pipe or a device."""
        for position in positions:
            self._status(position)
            yield files.read_bytes(self.root / self.names[position])

    def open(self, position: int) -> BinaryIO:
        """The opened file; `UnreadableError` names a pipe or a device."""
        self._status(position)
        return (self.root / self.names[position]).open("rb")

    def state(self, position: int) -> str:
        """Its size and the time of its last change."""
        status = self._status(position)
        return f"{status.st_size} {status.st_mtime_ns}"

    def _status(self, position: int) -> os.stat_result:
        path = self.root / self.names[position]
        status = path.stat()
        # A pipe would be waited for without end.
        if files.special(status):
            raise images.UnreadableError(str(path), "it is no regular file")
        return status


class EncodedImages(images.LazyImages):
    """Images that are decoded on demand from `encoded`; indexed like a uint8 array [N, H, W, C]."""

    def __init__(self, encoded: Encoded, data: settings.Data):
        super().__init__(len(encoded.names), self._decoded, data)
        self.encoded, self._data = encoded, data

    @property
    def positions(self) -> np.ndarray:
        """The positions of these images in `encoded`, [N]."""
        return self._positions

    @property
    def names(self) -> list[str]:
        """The name of each image in the source."""
        return [self.encoded.names[position] for position in self._positions.tolist()]

    def _decoded(self, positions: list[int]) -> Iterator[np.ndarray]:
        # One after the other: a file is read when its image is needed.
        contents = self.encoded.read(positions)
        for position, content in zip(positions, contents, strict=True):
            yield self.decode(position, content)

    def decode(self, position: int, content: bytes) -> np.ndarray:
        """The image at a position in `encoded` from its content, uint8 [H, W, C]."""
        name = f"{self.encoded.where}: {self.encoded.names[position]}"
        return images.decode(io.BytesIO(content), name, self._data)
