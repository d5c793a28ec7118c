"""One test per way in which a picture can be odd."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from flcl.data import images


def encoded(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file


def test_pixels_of_the_right_size_stay_as_they_are(data):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    decoded = images.decode(encoded(Image.fromarray(pixels)), "x", data())
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(images.convert(pixels, "x", data()), pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_formats_agree(kind, data):
    pixels = np.full((8, 8), 77, np.uint8)
    pixels[:4] = 200
    decoded = images.decode(encoded(Image.fromarray(pixels), kind), "x", data(channels=1))
    np.testing.assert_array_equal(decoded[..., 0], pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_near(kind, data):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    decoded = images.decode(encoded(image, kind), "x", data()).astype(int)
    assert np.abs(decoded - [200, 100, 50]).max() < 6


def test_grey_becomes_rgb_and_rgb_becomes_grey(data):
    grey = images.decode(encoded(Image.new("L", (8, 8), 90)), "x", data())
    np.testing.assert_array_equal(grey, np.full((8, 8, 3), 90))
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    red = images.decode(encoded(Image.new("RGB", (8, 8), (255, 0, 0))), "x", data(channels=1))
    np.testing.assert_array_equal(red, np.full((8, 8, 1), 76))


def test_one_bit_and_cmyk(data):
    white = images.decode(encoded(Image.new("1", (8, 8), 1)), "x", data())
    np.testing.assert_array_equal(white, np.full((8, 8, 3), 255))
    cmyk = images.decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "TIFF"), "x", data())
    np.testing.assert_array_equal(cmyk, np.full((8, 8, 3), 255))


def test_palette(data):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 80, 200])
    decoded = images.decode(encoded(image), "x", data())
    np.testing.assert_array_equal(decoded, np.broadcast_to([9, 80, 200], (8, 8, 3)))


def test_transparency_lies_on_white(data):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    image.paste((13, 14, 15, 0), (0, 0, 8, 4))  # a hidden colour must not show
    decoded = images.decode(encoded(image), "x", data())
    np.testing.assert_array_equal(decoded[:4], np.full((4, 8, 3), 255))
    np.testing.assert_array_equal(decoded[4:], np.broadcast_to([255, 0, 0], (4, 8, 3)))
    half = images.decode(encoded(Image.new("LA", (8, 8), (0, 51))), "x", data(channels=1))
    np.testing.assert_array_equal(half, np.full((8, 8, 1), 204))


def test_transparent_palette_colour_lies_on_white(data):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 80, 200])
    file = encoded(image, transparency=1)
    np.testing.assert_array_equal(images.decode(file, "x", data()), np.full((8, 8, 3), 255))
    file = encoded(image, transparency=b"\xff\x00")
    np.testing.assert_array_equal(images.decode(file, "x", data()), np.full((8, 8, 3), 255))


def test_sixteen_bits_are_scaled_not_clipped(data):
    values = np.array([0, 128, 129, 257, 32896, 65535, 1000, 65406], np.uint16)
    file = encoded(Image.fromarray(np.tile(values, (8, 1))))
    decoded = images.decode(file, "x", data(channels=1))
    expected = np.round(values / 257.0)
    np.testing.assert_array_equal(decoded[0, :, 0], expected)


def test_the_transparent_grey_of_sixteen_bits_lies_on_white(data):
    values = np.tile(np.array([1000, 25700, 1001, 65535], np.uint16), (8, 2))
    file = encoded(Image.fromarray(values), transparency=1000)
    decoded = images.decode(file, "x", data(channels=1))
    np.testing.assert_array_equal(decoded[0, :4, 0], [255, 100, 4, 255])


def test_orientation_of_a_camera_is_applied(data):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn it clockwise
    decoded = images.decode(encoded(Image.fromarray(pixels), exif=exif), "x", data(channels=1))
    np.testing.assert_array_equal(decoded[..., 0], np.rot90(pixels, -1))


def test_first_frame_of_an_animation(data):
    frames = [Image.new("L", (8, 8), value) for value in (40, 240)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(file, "x", data()), np.full((8, 8, 3), 40))


def test_downscaling_is_antialiased(data):
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    small = images.convert(checkers, "x", data(channels=1))
    # Picking pixels would give 0 or 255; the mean of the board is 127.5.
    assert np.abs(small.astype(float) - 127.5).max() < 3


def test_shorter_side_is_fitted_and_the_centre_kept(data):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = [0, 255, 0]
    wide[:, 32:] = [255, 0, 0]
    for pixels in (wide, wide.transpose(1, 0, 2)):
        small = images.convert(pixels, "x", data())
        assert small.shape == (8, 8, 3)
        np.testing.assert_array_equal(small[2:6, 2:6], np.broadcast_to([0, 255, 0], (4, 4, 3)))


@pytest.mark.parametrize(("width", "height"), [(101, 60), (60, 101), (100, 60), (61, 60), (60, 62)])
def test_a_picture_whose_shorter_side_fits_keeps_its_pixels(width, height, data):
    # Stripes of one pixel across the longer side: half a pixel of shift makes them grey.
    across = np.arange(width)[None, :, None] if width > height else np.arange(height)[:, None, None]
    stripes = np.broadcast_to((across % 2 * 255).astype(np.uint8), (height, width, 3))
    got = images.convert(stripes, "x", data(image_size=60))
    top, left = (height - 60) // 2, (width - 60) // 2
    np.testing.assert_array_equal(got, stripes[top : top + 60, left : left + 60])
    assert set(np.unique(got)) == {0, 255}


def test_upscaling(data):
    small = np.full((3, 2, 3), 120, np.uint8)
    np.testing.assert_array_equal(images.convert(small, "x", data()), np.full((8, 8, 3), 120))


def test_another_size_is_refused_without_resize(data):
    file = encoded(Image.new("L", (9, 7)))
    with pytest.raises(ValueError, match=r"cat/3\.png: the image is 9x7 .*image_size=8"):
        images.decode(file, "cat/3.png", data(resize=False))
    assert images.decode(encoded(Image.new("L", (8, 8))), "x", data(resize=False)).any() == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_images_are_named(kind, data):
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), kind).getvalue()
    with pytest.raises(ValueError, match=r"^dog/1: no readable image \(.*; repair or replace it$"):
        images.decode(io.BytesIO(content[: len(content) // 2]), "dog/1", data())


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_unreadable_images_are_named_in_one_line(content, data):
    with pytest.raises(ValueError, match="dog/2: no readable image") as caught:
        images.decode(io.BytesIO(content), "dog/2", data())
    assert "\n" not in str(caught.value)


def test_pixels_without_a_known_range_are_refused(data):
    file = encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")
    with pytest.raises(ValueError, match="x.tif: .*floating-point.*8 or 16 bit"):
        images.decode(file, "x.tif", data())
    file = encoded(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF")
    with pytest.raises(ValueError, match="x.tif: .*beyond 16 bit"):
        images.decode(file, "x.tif", data())


def numbered(count: int, data) -> images.LazyImages:
    def read(positions):
        return (np.full((8, 8, 3), position, np.uint8) for position in positions)

    return images.LazyImages(count, read, data)


def test_lazy_images_are_indexed_like_an_array(data):
    lazy = numbered(9, data())
    array = np.stack([np.full((8, 8, 3), n, np.uint8) for n in range(9)])
    assert lazy.shape == array.shape and lazy.dtype == array.dtype
    assert len(lazy) == 9 and lazy.nbytes == array.nbytes
    chosen = [np.array([3, 1, 3, -1]), slice(2, 9, 3), 4, np.array([], int), array[:, 0, 0, 0] > 5]
    for index in chosen:
        np.testing.assert_array_equal(lazy[index], array[index])
        assert lazy[index].dtype == np.uint8
    with pytest.raises(IndexError):
        lazy[[9]]


def test_taken_images_are_those_of_an_array(data):
    lazy, array = numbered(9, data()), numbered(9, data())[np.arange(9)]
    rows = np.array([7, 2, 2, 5])
    taken = lazy.take(rows)
    assert taken.shape == (4, 8, 8, 3) and len(taken) == 4 and taken.nbytes == 4 * 192
    np.testing.assert_array_equal(taken[np.array([3, 0])], array[rows][[3, 0]])
    np.testing.assert_array_equal(taken.take(np.array([1, 3]))[:], array[[2, 5]])
    np.testing.assert_array_equal(images.keep(taken, 1.0, 2), array[rows])
    assert len(lazy) == 9
    with pytest.raises(IndexError):
        taken[[4]]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_keep_decodes_everything_once(threads, data):
    seen, lock = [], threading.Lock()

    def read(positions):
        with lock:
            seen.extend(positions)
        return (np.full((8, 8, 3), position % 251, np.uint8) for position in positions)

    kept = images.keep(images.LazyImages(700, read, data()), 1.0, threads)
    assert isinstance(kept, np.ndarray)
    np.testing.assert_array_equal(kept[:, 3, 3, 1], np.arange(700) % 251)
    assert sorted(seen) == list(range(700))


def test_keep_leaves_what_is_too_large(data):
    lazy = numbered(4, data())
    limit = lazy.nbytes / 2**30
    assert isinstance(images.keep(lazy, limit, 1), np.ndarray)
    assert images.keep(lazy, limit * 0.999, 1) is lazy


def test_keep_names_the_first_unreadable_image(data):
    def read(positions):
        for position in positions:
            if position in (300, 650):
                raise ValueError(f"image {position}: no readable image")
            yield np.zeros((8, 8, 3), np.uint8)

    for _ in range(5):
        with pytest.raises(ValueError, match="image 300"):
            images.keep(images.LazyImages(700, read, data()), 1.0, 3)
