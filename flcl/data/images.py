"""Converts pictures of any format to uint8 arrays of one shape, at once or on demand."""

import concurrent.futures
import contextlib
import copy
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from flcl import settings

_CHUNK = 256  # images per job of the thread pool: large enough to hide the cost of a job


def decode(file: str | pathlib.Path | BinaryIO, name: str, data: settings.Data) -> np.ndarray:
    """One image file as uint8 [data.image_size, data.image_size, data.channels].

    Reads all formats of Pillow: palettes, 16 bit grey (scaled to 8), EXIF orientation (applied),
    animations (first frame), transparency (on white). `ValueError` names an image that is
    unreadable or truncated, or that has another size although `data.resize` is off.
    """
    with _readable(name), Image.open(file) as image:
        # Pillow opens a file without reading it. It is read here, inside the block that names a
        # broken file.
        image.load()
        image = _to_mode(ImageOps.exif_transpose(image), data.channels)
    return _fit(image, name, data)


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns every error inside the block into one line that names the image."""
    try:
        yield
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: no readable image ({reason}); repair or remove it") from error


def convert(pixels: np.ndarray, name: str, data: settings.Data) -> np.ndarray:
    """uint8 [h, w, c] as uint8 [data.image_size, data.image_size, data.channels]; see `decode`."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _fit(_to_mode(image, data.channels), name, data)


def from_user(
    given: np.ndarray | Image.Image | str | pathlib.Path | Sequence, data: settings.Data
) -> np.ndarray:
    """Images of a user as uint8 [N, data.image_size, data.image_size, data.channels].

    given: uint8 [N, h, w, 3], [N, h, w, 1] or [N, h, w]; one image [h, w, 3], [h, w, 1] or [h, w]
    (an array of three axes is one image if the last axis has 1 or 3 entries); one path or Pillow
    image; or a list of paths, Pillow images and uint8 images, of any sizes. Every image is resized
    and cropped as in `decode`. `ValueError` names an image with a type other than uint8, a wrong
    shape, an unreadable file, or another size if `data.resize` is off.
    """
    items = _items(given)
    pixels = np.empty((len(items), data.image_size, data.image_size, data.channels), np.uint8)
    for number, item in enumerate(items):
        pixels[number] = _image(item, f"images[{number}]", data)
    return pixels


def _items(given) -> Sequence:
    if isinstance(given, (str, pathlib.Path, Image.Image)):
        return [given]
    if isinstance(given, (list, tuple)):
        return given
    pixels = _bytes(given, "images")
    # Three axes are one colour image or many grey ones; the size of the last axis decides.
    if pixels.ndim == 4 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        return pixels
    return [pixels]


def _image(item, name: str, data: settings.Data) -> np.ndarray:
    if isinstance(item, (str, pathlib.Path)):
        return decode(item, str(item), data)
    if isinstance(item, Image.Image):
        with _readable(name):
            image = _to_mode(ImageOps.exif_transpose(item), data.channels)
        return _fit(image, name, data)
    pixels = _bytes(item, name)
    shown = list(pixels.shape)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"{name} has shape {shown}; accepted are [h, w], [h, w, 1] and [h, w, 3]")
    return convert(pixels, name, data)


def _bytes(values, name: str) -> np.ndarray:
    pixels = np.asarray(values)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"{name}: {type(values).__name__} of {pixels.dtype}; accepted are uint8 arrays with "
            "values 0 to 255 (for floats in 0..1: (images * 255).round().astype('uint8')), paths "
            "and Pillow images"
        )
    return pixels


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
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError("pixel values beyond 16 bit; save it with 8 or 16 bit")
    # 65535 / 255 = 257, so this is a division with rounding.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


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
