"""Converts pictures of any format to uint8 arrays of one shape, at once or on demand."""

import concurrent.futures
import contextlib
import copy
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from flcl import files, settings
from flcl.data.encoded import opening

_CHUNK = 256  # images per job of the thread pool: large enough to hide the cost of a job


class UnreadableError(ValueError):
    """A picture that was read whole and cannot be decoded; `reason` is a part of a line."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: no readable image ({reason}); repair or replace it")
        self.reason = reason


def decode(file: str | pathlib.Path | BinaryIO, name: str, data: settings.Data) -> np.ndarray:
    """One image file as uint8 [data.image_size, data.image_size, data.channels].

    Reads all formats of Pillow: palettes, 16 bit grey (scaled to 8), EXIF orientation (applied),
    animations (first frame), transparency (on white). Very large pictures are decoded at reduced
    size. `UnreadableError` names an image that is damaged; `ValueError` one that has another size
    although `data.resize` is off. A file that cannot be read now raises `OSError`.
    """
    with readable(name):
        if isinstance(file, (str, pathlib.Path)):
            content = files.read_bytes(file)
        else:
            file.seek(0)
            content = file.read()
        to_mode = functools.partial(_to_mode, channels=data.channels)
        image = opening.upright(content, data.image_size if data.resize else None, to_mode)
    return _fit(image, name, data)


def readable(name: str) -> contextlib.AbstractContextManager[None]:
    """Turns an error of a decoder inside the block into an `UnreadableError` with `name`."""
    return files.reading(name, lambda reason: UnreadableError(name, reason))


def convert(pixels: np.ndarray, name: str, data: settings.Data) -> np.ndarray:
    """uint8 [h, w, c] as uint8 [data.image_size, data.image_size, data.channels]; see `decode`.

    c: 1 to 4 channels: grey, grey and alpha, RGB, RGB and alpha.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _fit(_to_mode(image, data.channels), name, data)


def convert_picture(image: Image.Image, name: str, data: settings.Data) -> np.ndarray:
    """A Pillow image as uint8 [data.image_size, data.image_size, data.channels]; see `decode`."""
    with readable(name):
        image = _to_mode(ImageOps.exif_transpose(image), data.channels)
    return _fit(image, name, data)


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    # Pillow's own conversion clips 16 bit values to 255 instead of scaling them.
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bit")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        # On white: without it, the colour of transparent pixels would become visible, whatever it
        # is.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    clear = image.info.get("transparency")  # of a PNG: the grey value that is transparent
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError("pixel values beyond 16 bit; save it with 8 or 16 bit")
    # 65535 / 255 = 257, so this is a division with rounding.
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if isinstance(clear, int):
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, alpha))
    return grey


def _fit(image: Image.Image, name: str, data: settings.Data) -> np.ndarray:
    """Resizes the shorter side to `data.image_size` and crops the centre, in one resampling.

    If the shorter side already fits, no pixel changes: the centre is cut out at whole pixels.
    """
    width, height = image.size
    size = data.image_size
    if (width, height) != (size, size):
        if not data.resize:
            raise ValueError(
                f"{name}: the image is {width}x{height} pixels, but data.image_size={size} and "
                "data.resize=False; resize the images or set data.resize=True"
            )
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        if side == size:
            # Half a pixel would mix each pixel with its neighbour.
            left, top = int(left), int(top)
            image = image.crop((left, top, left + side, top + side))
        else:
            # Cropping and resizing are one step, so pixels are interpolated only once. Pillow's
            # filter becomes wider if the image becomes smaller, so fine patterns are not aliased.
            box = (left, top, left + side, top + side)
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, np.uint8).reshape(size, size, data.channels)


class LazyImages:
    """Images that are decoded on demand; indexed like a uint8 array [N, H, W, C].

    read: positions -> one uint8 [H, W, C] for each; several threads may call it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, count: int, read: Callable[[list[int]], Iterable[np.ndarray]], data: settings.Data
    ):
        self.shape = (count, data.image_size, data.image_size, data.channels)
        self._read = read
        # NumPy applies slices, negative numbers, masks and range checks to these positions.
        self._positions = np.arange(count)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all images once decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def take(self, positions: np.ndarray) -> "LazyImages":
        """Only the images at `positions` [M], still not decoded."""
        # A copy shares the reader; only the positions differ.
        taken = copy.copy(self)
        taken._positions = self._positions[positions]
        taken.shape = (len(taken._positions), *self.shape[1:])
        return taken

    def __getitem__(self, index) -> np.ndarray:
        """uint8 [H, W, C] for one integer, otherwise [len(index), H, W, C]."""
        chosen = self._positions[index]
        images = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        positions = chosen.reshape(-1).tolist()
        for row, image in enumerate(self._read(positions)):
            images[row] = image
        return images[0] if chosen.ndim == 0 else images


def keep(images: LazyImages, memory_gib: float, threads: int) -> np.ndarray | LazyImages:
    """All images, decoded now by `threads` threads; `images` itself if above `memory_gib` GiB."""
    if images.nbytes > memory_gib * 2**30:
        return images
    kept = np.empty(images.shape, np.uint8)

    def fill(start: int) -> None:
        kept[start : start + _CHUNK] = images[start : start + _CHUNK]

    pool = concurrent.futures.ThreadPoolExecutor(max(threads, 1), "decode")
    try:
        # In order, so the error always names the first unreadable image.
        for _ in pool.map(fill, range(0, len(images), _CHUNK)):
            pass
    finally:
        # After an error, jobs that have not started are not worth their time.
        pool.shutdown(cancel_futures=True)
    return kept
