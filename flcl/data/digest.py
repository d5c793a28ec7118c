"""The SHA-256 of images: whether a run continues, or is compared, with the same images."""

import hashlib
from collections.abc import Mapping

import numpy as np

from flcl.data.encoded.lazy import EncodedImages
from flcl.data.images import LazyImages, UnreadableError
from flcl.data.selection import Selection

_CHUNK = 256  # images that are decoded together


def sha256(images: np.ndarray | LazyImages) -> str:
    """SHA-256 of images in their order, in hexadecimal.

    Of files and records it is that of their content as it is stored, so another version of a
    decoder does not change it, and neither does another name or place. Of arrays it is that of the
    pixels, uint8 [N, H, W, C]. Raises `OSError` for a file that cannot be read now.
    """
    total = hashlib.sha256()
    if isinstance(images, EncodedImages):
        for position in images.positions.tolist():
            total.update(hashlib.sha256(_content(images, position)).digest())
        return total.hexdigest()
    total.update(str(images.shape).encode())
    for start in range(0, len(images), _CHUNK):
        total.update(np.ascontiguousarray(images[start : start + _CHUNK]))
    return total.hexdigest()


def of_set(named: Mapping[str, Selection]) -> str | None:
    """SHA-256 of images with names, whatever their order, in hexadecimal.

    It is the sum modulo 2^256 of the SHA-256 of each image with its name, so those of the tasks of
    a run add up to that of all its images. named: by name, for example that of the class; uint8
    [N, H, W, C]. None = images that are not in memory: to read them only for this costs minutes.
    """
    total = 0
    for name, images in named.items():
        if not isinstance(images.images, np.ndarray):
            return None
        start = hashlib.sha256(f"{name} {images.images.shape[1:]}".encode())
        for position in images.indices.tolist():
            image = start.copy()
            image.update(np.ascontiguousarray(images.images[position]))
            total += int.from_bytes(image.digest(), "big")
    return f"{total % 2**256:064x}"


def _content(images: EncodedImages, position: int) -> bytes:
    try:
        return next(iter(images.encoded.read([position])))
    except UnreadableError:  # a pipe; such images are left out, or an error of the source
        return b""
