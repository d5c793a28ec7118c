"""Sound pictures that Pillow refuses: long texts, very many pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flcl.data import images
from flcl.data.encoded import opening


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(content: bytes, settings) -> np.ndarray:
    return images.decode(io.BytesIO(content), "x", settings)


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("late", [False, True])
def test_a_long_text_in_a_png_file(kind, late, data):
    head = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
    text = chunk(kind, head + zlib.compress(b"x" * 3_000_000))
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    plain = encoded(Image.fromarray(pixels))
    place = len(plain) - 12 if late else 33  # before the end, or after the header
    content = plain[:place] + text + plain[place:]
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(content)) as image:
        image.load()
    np.testing.assert_array_equal(decode(content, data()), pixels)
    opening.check_header(io.BytesIO(content))


def test_the_first_error_is_told_of_a_picture_with_a_text(data):
    info = PngImagePlugin.PngInfo()
    info.add_text("k", "x" * 3000)
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), pnginfo=info)
    assert decode(content, data()).shape == (8, 8, 3)
    with pytest.raises(images.UnreadableError, match="truncated"):
        decode(content[:-1000], data())


def halves(mode: str, size: tuple[int, int], values: tuple) -> Image.Image:
    """The upper half has the first value, the lower half the second."""
    image = Image.new(mode, size, values[1])
    image.paste(values[0], (0, 0, size[0], size[1] // 2))
    return image


@pytest.mark.parametrize(
    ("kind", "mode", "values", "greys"),
    [
        ("PNG", "L", (40, 200), (40, 200)),
        ("PNG", "LA", ((40, 255), (0, 0)), (40, 255)),
        ("PNG", "I;16", (40 * 257, 200 * 257), (40, 200)),
        ("PNG", "1", (0, 1), (0, 255)),
        ("JPEG", "L", (40, 200), (40, 200)),
        ("TIFF", "L", (40, 200), (40, 200)),
    ],
)
def test_a_large_picture_is_decoded_at_reduced_size(kind, mode, values, greys, data, monkeypatch):
    """With limits of our own and of Pillow that are so small that no test needs gigabytes."""
    monkeypatch.setattr(opening, "_LARGE", 2 * 30_000)
    monkeypatch.setattr(opening, "_STRIP_PIXELS", 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    if mode == "I;16":
        array = np.repeat(np.array(values, np.uint16), 160)[:, None].repeat(256, axis=1)
        image = Image.fromarray(array)
    else:
        image = halves(mode, (256, 320), values)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    for exif, (first, second) in ((Image.Exif(), greys), (turned, greys[::-1])):
        content = encoded(image, kind, exif=exif, **options)
        decoded = decode(content, data(channels=1))[..., 0].astype(int)
        assert np.abs(decoded[:2] - first).max() <= 2 and np.abs(decoded[-2:] - second).max() <= 2
    assert Image.MAX_IMAGE_PIXELS == 30_000


def test_a_picture_above_all_limits_is_refused_without_being_decoded(data):
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(images.UnreadableError, match="200000x200000 pixels do not fit into 4 GiB"):
        decode(content, data())
    opening.check_header(io.BytesIO(content))


def test_a_large_picture_keeps_its_size_without_resize(data, monkeypatch):
    monkeypatch.setattr(opening, "_LARGE", 1000)
    content = encoded(Image.new("L", (90, 40)))
    with pytest.raises(ValueError, match="the image is 90x40 pixels"):
        decode(content, data(resize=False))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https", "it has no format that Pillow knows"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS is a program, not a picture"),
    ],
)
def test_files_that_are_no_picture(content, reason, data):
    with pytest.raises(images.UnreadableError) as caught:
        decode(content, data())
    assert caught.value.reason == reason
