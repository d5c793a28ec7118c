"""Images as users hold them: arrays, files, encoded bytes, Pillow images."""

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from flcl import files, settings
from flcl.data import images
from flcl.data.arrays import pixels as rules

_ENCODED = (bytes, bytearray)


def from_user(
    given: np.ndarray | Image.Image | str | pathlib.Path | bytes | Sequence, data: settings.Data
) -> np.ndarray:
    """Images of a user as uint8 [N, data.image_size, data.image_size, data.channels].

    given: uint8 [N, h, w] or [N, h, w, c] with 1 to 4 channels (grey, grey and alpha, RGB, RGB and
    alpha); one image [h, w] or [h, w, c]; one path, Pillow image or encoded image (bytes, or uint8
    [n]); or a list of these, of any sizes. Transparent pixels become white.

    An array of three axes is one image if the last axis has 1 to 4 entries; write grey images that
    are so narrow as [N, h, w, 1]. [3, h, w] is refused: it may be one image with its channels
    first, or three grey images. Every image is resized and cropped as in `images.decode`.

    `ValueError` names an image with a type other than uint8, a wrong shape, an unreadable file, or
    another size if `data.resize` is off. `OSError` names a missing file.
    """
    items = _items(given)
    found = np.empty((len(items), data.image_size, data.image_size, data.channels), np.uint8)
    for number, item in enumerate(items):
        found[number] = _image(item, f"images[{number}]", data)
    return found


def _items(given) -> Sequence:
    if isinstance(given, (list, tuple)):
        return given
    if isinstance(given, (str, os.PathLike, Image.Image, *_ENCODED)):
        return [given]
    array = _array(given, "images")
    if array.ndim == 1 and array.dtype.kind in "OU":  # paths, Pillow images, encoded images
        return array.tolist()
    _check_type(given, array, "images")
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in rules.CHANNELS:
        raise ValueError(
            f"images has shape {list(array.shape)}: three grey images are [3, h, w, 1]"
            f"{rules.hint(array.shape)}"
        )
    if array.ndim == 4 and array.shape[3] not in rules.CHANNELS:
        raise ValueError(
            f"images has shape {list(array.shape)}; accepted are [N, h, w] and [N, h, w, c] with 1 "
            f"to 4 channels{rules.hint(array.shape)}"
        )
    # Three axes are one image or many grey ones; the size of the last axis decides.
    many = array.ndim == 4 or (array.ndim == 3 and array.shape[2] not in rules.CHANNELS)
    return array if many else [array]


def _image(item, name: str, data: settings.Data) -> np.ndarray:
    if isinstance(item, (str, os.PathLike)):
        return images.decode(files.regular(item), str(item), data)
    if isinstance(item, _ENCODED):
        return images.decode(io.BytesIO(item), name, data)
    if isinstance(item, Image.Image):
        if 0 in item.size:
            raise ValueError(f"{name} has no pixels: it is {item.width}x{item.height}")
        return images.convert_picture(item, name, data)
    values = _array(item, name)
    _check_type(item, values, name)
    if values.ndim == 1:
        return images.decode(io.BytesIO(values.tobytes()), name, data)
    shown = list(values.shape)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in rules.CHANNELS or 0 in values.shape:
        raise ValueError(
            f"{name} has shape {shown}; accepted are [h, w] and [h, w, c] with 1 to 4 channels"
            f"{rules.hint(values.shape)}"
        )
    return images.convert(values, name, data)


def _array(values, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal length; tensors
        kind = type(values).__name__
        raise ValueError(f"{name}: {kind} is no array ({files.reason(error)})") from error


def _check_type(given, values: np.ndarray, name: str) -> None:
    if values.dtype != np.uint8:
        has, advice = rules.contents(values)
        raise ValueError(
            f"{name}: {type(given).__name__} of {has}; accepted are uint8 arrays with values 0 to "
            f"255 ({advice}), paths, encoded images and Pillow images"
        )
