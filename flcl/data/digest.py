"""The SHA-256 of images: whether a run that continues has the images with which it began."""

import hashlib

import numpy as np

from flcl.data.encoded.lazy import EncodedImages
from flcl.data.images import LazyImages, UnreadableError

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


def _content(images: EncodedImages, position: int) -> bytes:
    try:
        return next(iter(images.encoded.read([position])))
    except UnreadableError:  # a pipe; such images are left out, or an error of the source
        return b""
