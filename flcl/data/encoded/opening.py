"""Opens pictures that Pillow refuses although they are sound: very large ones, and long texts."""

import contextlib
import io
import struct
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps

# Above this number of pixels Pillow refuses a picture: a small file may hold one that fills the
# memory.
_LARGE = 2 * 89_478_485

MOST_BYTES = 4 * 2**30
"""Decoded size in bytes up to which a picture is read that cannot be decoded at reduced size."""

_SPARE = 4  # a reduced picture keeps so many times the pixels of the final image, for its filter
_LARGEST_FACTOR = 16  # of one reduction; the last resize does the rest
_STRIP_PIXELS = 2**24  # of a large picture that are converted at a time
_PROGRAMS = ("EPS",)  # Pillow gives them to another program of the machine, which runs them
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # PNG chunks without pixels, which may be too large

# Large pictures are decoded one at a time: each may need gigabytes.
_one_at_a_time = threading.RLock()


def upright(
    content: bytes, size: int | None, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """The picture in `content`, decoded, turned as its EXIF says, and converted.

    size: the height and width of the final image; None = the image keeps its size. A picture of
    more than 178,956,970 pixels, which Pillow takes for an attack, is decoded at a reduced size,
    in which the shorter side is still a few times as long. Raises whatever Pillow raises for a
    picture that is unreadable.
    """
    return _tried(io.BytesIO(content), lambda file: _upright(file, size, convert))


def check_header(file: BinaryIO) -> None:
    """Opens a picture without decoding it; raises whatever Pillow raises."""
    _tried(file, _opened)


def _tried(file: BinaryIO, read: Callable[[BinaryIO], Image.Image]) -> Image.Image:
    """`read` of a picture; again without a limit of Pillow, or without what exceeds it."""
    try:
        return read(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # TIFF and WebP have this limit inside, and it is one for the whole process.
        with _one_at_a_time, _no_limit():
            return read(file)
    except Exception:
        # A text may have no more than a megabyte; we need only the pixels.
        file.seek(0)
        content = file.read()
        shorter = b"".join(_without_texts(content))
        if len(shorter) < len(content):
            with contextlib.suppress(Exception):  # then the first error is the one that counts
                return read(io.BytesIO(shorter))
        raise


@contextlib.contextmanager
def _no_limit() -> Iterator[None]:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _upright(file: BinaryIO, size: int | None, convert) -> Image.Image:
    with _opened(file) as image:
        if image.width * image.height > _LARGE:
            with _one_at_a_time:
                return _reduced(image, size, convert)
        # Pillow opens a file without reading it.
        image.load()
        return convert(ImageOps.exif_transpose(image))


def _opened(file: BinaryIO) -> Image.Image:
    """As `Image.open` of a file, but without its limit of pixels and the warning before it."""
    file.seek(0)
    prefix = file.read(16)
    # The five most usual formats first: importing all takes a second.
    for load in (Image.preinit, Image.init):
        load()
        for name in Image.ID:
            factory, accepts = Image.OPEN[name]
            # These errors say that the file has another format.
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                accepted = not accepts or accepts(prefix)
                if accepted and name in _PROGRAMS:
                    raise Image.UnidentifiedImageError(f"{name} is a program, not a picture")
                if accepted and not isinstance(accepted, str):  # a text says why it is not
                    file.seek(0)
                    return factory(file, "")
    if not prefix:
        raise Image.UnidentifiedImageError("the file is empty")
    raise Image.UnidentifiedImageError("it has no format that Pillow knows")


def _reduced(image: Image.Image, size: int | None, convert) -> Image.Image:
    """A large picture, decoded, at a fraction of its size that is a whole number."""
    wanted = _SPARE * size if size else max(image.size)
    # JPEG decodes at a half, a quarter or an eighth; other formats are not changed by this line.
    image.draft(None, (wanted, wanted))
    width, height = image.size
    if width * height * len(image.getbands()) > MOST_BYTES:
        raise ValueError(
            f"{width}x{height} pixels do not fit into {MOST_BYTES // 2**30} GiB; make it smaller"
        )
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    factor = min(max(1, min(width, height) // wanted), _LARGEST_FACTOR)
    rows = factor * max(1, _STRIP_PIXELS // (width * factor))
    small: Image.Image | None = None
    # In strips, because a conversion of the whole picture would need its memory several times.
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = convert(image.crop((0, top, width, bottom))).reduce(factor)
        if small is None:
            small = Image.new(strip.mode, (strip.width, -(-height // factor)))
        small.paste(strip, (0, top // factor))
    small.getexif()[ExifTags.Base.Orientation] = turned
    return ImageOps.exif_transpose(small)


def _without_texts(content: bytes) -> Iterator[bytes]:
    """The parts of a PNG file without its texts; the whole content if it is no sound PNG file."""
    place = 8
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield content
        return
    yield content[:place]
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length  # length, kind, data, checksum
        if kind not in _TEXTS:
            yield content[place:end]
        place = end
    yield content[place:]
