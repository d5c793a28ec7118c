"""Images as users hold them, in one shape."""

import io
import os

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flcl.data import images
from flcl.data.arrays.user import from_user

RGB = np.random.RandomState(0).randint(0, 256, (4, 8, 8, 3)).astype(np.uint8)
GREY = RGB[..., 0]


def test_arrays_of_the_right_size_stay_as_they_are(data):
    np.testing.assert_array_equal(from_user(RGB, data()), RGB)
    np.testing.assert_array_equal(from_user(GREY, data(channels=1)), GREY[..., None])
    np.testing.assert_array_equal(from_user(GREY[..., None], data(channels=1)), GREY[..., None])


def test_grey_becomes_rgb(data):
    expected = np.repeat(GREY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(from_user(GREY, data()), expected)


def test_one_image_is_a_batch_of_one(data, tmp_path, picture):
    for one in (RGB[1], Image.fromarray(RGB[1]), str(picture(tmp_path / "a.png", RGB[1]))):
        np.testing.assert_array_equal(from_user(one, data()), RGB[1:2])
    for one in (GREY[1], GREY[1][..., None]):
        np.testing.assert_array_equal(from_user(one, data(channels=1)), GREY[1:2][..., None])


def test_lists_may_mix_kinds_and_sizes(data, tmp_path, picture):
    path = picture(tmp_path / "a.png", RGB[0])
    large = np.random.RandomState(1).randint(0, 256, (20, 12, 3)).astype(np.uint8)
    found = from_user([path, str(path), Image.fromarray(RGB[1]), RGB[2], large], data())
    np.testing.assert_array_equal(found[:4], RGB[[0, 0, 1, 2]])
    np.testing.assert_array_equal(found[4], images.convert(large, "x", data()))
    saved = picture(tmp_path / "large.png", large)
    np.testing.assert_array_equal(from_user([saved], data())[0], found[4])


def test_no_images(data):
    for none in ([], np.zeros((0, 5, 5, 3), np.uint8)):
        assert from_user(none, data()).shape == (0, 8, 8, 3)


def test_pillow_images_are_turned_upright(data):
    image = Image.fromarray(RGB[0])
    image.getexif()[0x0112] = 3  # turned by 180 degrees
    np.testing.assert_array_equal(from_user([image], data())[0], RGB[0, ::-1, ::-1])


def test_transparent_pixels_become_white(data):
    rgba = np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], -1)
    grey = np.stack([GREY, np.full_like(GREY, 255)], -1)
    expected = {4: RGB, 2: np.repeat(GREY[..., None], 3, -1)}
    for values in (rgba, grey):
        clear = values.copy()
        clear[:, 3:] = 0  # of any colour
        for given, rows in ((values, 8), (clear, 3)):
            found = from_user(given, data())
            np.testing.assert_array_equal(found[:, :rows], expected[values.shape[-1]][:, :rows])
            assert (found[:, rows:] == 255).all()
            # One image is one picture, not as many as it has rows.
            np.testing.assert_array_equal(from_user(given[1], data()), found[1:2])
            np.testing.assert_array_equal(from_user(list(given), data()), found)


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_encoded_images_are_decoded(data):
    one = encoded(RGB[0])
    for given in (one, bytearray(one), memoryview(one), np.frombuffer(one, np.uint8)):
        np.testing.assert_array_equal(from_user(given, data()), RGB[:1])
        np.testing.assert_array_equal(from_user([RGB[1], given], data()), RGB[[1, 0]])
    several = [encoded(image) for image in RGB]
    np.testing.assert_array_equal(from_user(np.array(several, object), data()), RGB)


def test_arrays_of_paths(data, tmp_path, picture):
    paths = [str(picture(tmp_path / f"{n}.png", RGB[n])) for n in range(2)]
    np.testing.assert_array_equal(from_user(np.array(paths), data()), RGB[:2])


def test_three_axes_that_are_many_grey_images(data):
    many = np.random.RandomState(0).randint(0, 256, (5, 8, 8)).astype(np.uint8)
    for count in (1, 2, 4, 5):
        found = from_user(many[:count], data(channels=1))
        np.testing.assert_array_equal(found[..., 0], many[:count])
    np.testing.assert_array_equal(
        from_user(many[:3, ..., None], data(channels=1))[..., 0], many[:3]
    )


RANGES = [
    (np.float32([0, 1]), r"float32 with values from 0 to 1; .*\(images \* 255\).round\(\)"),
    (np.float64([-1, 0.5]), r"values from -1 to 0.5; .*\(\(images \+ 1\) \* 127.5\).round"),
    (np.float16([0, 255]), r"values from 0 to 255; .*\(these fit: images.round\(\).astype"),
    (np.int64([0, 255]), r"int64 with values from 0 to 255; .*\(these fit: images.astype"),
    (np.uint16([0, 65535]), r"uint16 with values from 0 to 65535; .*images // 257"),
    (np.float32([-2.1, 2.6]), r"values from -2.1 to 2.6; .*undo their normalisation"),
    (np.int8([-128, 127]), r"values from -128 to 127; .*undo their normalisation"),
    (np.float32([0, np.nan]), r"values from nan to nan; .*replace NaN and infinity"),
    (np.float32([0, np.inf]), r"values from 0 to inf; .*replace NaN and infinity"),
    (np.array([True, False]), r"bool with values from 0 to 1; .*images \* 255"),
    (jnp.array([0, 0.5], jnp.bfloat16), r"bfloat16 with values from 0 to 0.5; .*images \* 255"),
    (np.array([1j]), "complex128; accepted"),
]


@pytest.mark.parametrize(("values", "message"), RANGES)
def test_other_types_are_refused_with_their_range(data, values, message):
    for name, given in (("images", np.resize(values, (2, 8, 8, 3))),
                        (r"images\[0\]", [np.resize(values, (8, 8, 3))])):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name}: ndarray of .*{message}"):
            from_user(given, data())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RGB / 255, r"^images: ndarray of float64 with .* accepted are uint8 arrays .*paths"),
        ([RGB[0], RGB[1].astype(np.float32)], r"^images\[1\]: ndarray of float32 .*; accepted"),
        ([[1, 2], [3, 4]], r"^images\[0\]: list of int64 .*; accepted"),
        ([[[1, 2], [3]]], r"^images\[0\]: list is no array \(.*inhomogeneous"),
        ((image for image in RGB), "^images: generator of object; accepted"),
        (None, "^images: NoneType of object; accepted"),
        ({"a": RGB}, "^images: dict of object; accepted"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"^images has shape \[2, 8, 8, 5\]; accepted"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), r"^images\[0\] has shape \[2, 2"),
        (np.zeros(5, np.uint8), r"^images\[0\]: no readable image"),
        (b"no image", r"^images\[0\]: no readable image"),
        (Image.new("RGB", (0, 9)), r"^images\[0\] has no pixels: it is 0x9"),
        (encoded(RGB[0])[:60], r"^images\[0\]: no readable image"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"^images\[0\] has shape \[0, 8, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"^images has shape \[3, 8, 8\]: three grey images are "
         r"\[3, h, w, 1\]; the channels come last: numpy.transpose\(image, \(1, 2, 0\)\)$"),
        ([np.zeros((3, 8, 8), np.uint8)], r"^images\[0\] has shape \[3, 8, 8\].*\(1, 2, 0\)"),
        ([np.zeros((1, 8, 8), np.uint8)], r"^images\[0\] has shape \[1, 8, 8\].*\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"^images has shape \[2, 3, 8, 8\].*\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8, 16), np.uint8), r"^images has shape \[2, 8, 8, 16\]; .* channels$"),
        (["a\0b.png"], "no file can have this name"),
        ("/dev/zero", "^/dev/zero: is a device; a regular file is needed"),
    ],
)  # fmt: skip
def test_other_things_are_refused(data, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_user(given, data())
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_not_regular(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.png"):
        from_user(["none.png"], data())
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png: is a named pipe; a regular file is needed"):
        from_user(str(tmp_path / "pipe.png"), data())
    with pytest.raises(ValueError, match=": is a folder; a regular file is needed"):
        from_user(tmp_path, data())


def test_another_size_may_be_refused(data):
    with pytest.raises(ValueError, match=r"images\[0\]: the image is 5x4 pixels, but data.image_s"):
        from_user(np.zeros((1, 4, 5, 3), np.uint8), data(resize=False))
