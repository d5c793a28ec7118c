"""Images as users hold them, in one shape."""

import numpy as np
import pytest
from PIL import Image

from flcl.data import images

RGB = np.random.RandomState(0).randint(0, 256, (4, 8, 8, 3)).astype(np.uint8)
GREY = RGB[..., 0]


def test_arrays_of_the_right_size_stay_as_they_are(data):
    np.testing.assert_array_equal(images.from_user(RGB, data()), RGB)
    np.testing.assert_array_equal(images.from_user(GREY, data(channels=1)), GREY[..., None])
    np.testing.assert_array_equal(
        images.from_user(GREY[..., None], data(channels=1)), GREY[..., None]
    )


def test_grey_becomes_rgb(data):
    expected = np.repeat(GREY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(images.from_user(GREY, data()), expected)


def test_one_image_is_a_batch_of_one(data, tmp_path, picture):
    for one in (RGB[1], Image.fromarray(RGB[1]), str(picture(tmp_path / "a.png", RGB[1]))):
        np.testing.assert_array_equal(images.from_user(one, data()), RGB[1:2])
    for one in (GREY[1], GREY[1][..., None]):
        np.testing.assert_array_equal(images.from_user(one, data(channels=1)), GREY[1:2][..., None])


def test_lists_may_mix_kinds_and_sizes(data, tmp_path, picture):
    path = picture(tmp_path / "a.png", RGB[0])
    large = np.random.RandomState(1).randint(0, 256, (20, 12, 3)).astype(np.uint8)
    found = images.from_user([path, str(path), Image.fromarray(RGB[1]), RGB[2], large], data())
    np.testing.assert_array_equal(found[:4], RGB[[0, 0, 1, 2]])
    np.testing.assert_array_equal(found[4], images.convert(large, "x", data()))
    saved = picture(tmp_path / "large.png", large)
    np.testing.assert_array_equal(images.from_user([saved], data())[0], found[4])


def test_no_images(data):
    for none in ([], np.zeros((0, 5, 5, 3), np.uint8)):
        assert images.from_user(none, data()).shape == (0, 8, 8, 3)


def test_pillow_images_are_turned_upright(data):
    image = Image.fromarray(RGB[0])
    image.getexif()[0x0112] = 3  # turned by 180 degrees
    np.testing.assert_array_equal(images.from_user([image], data())[0], RGB[0, ::-1, ::-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RGB / 255, r"^images: ndarray of float64; accepted are uint8 arrays .*\* 255.*paths"),
        ([RGB[0], RGB[1].astype(np.float32)], r"^images\[1\]: ndarray of float32; accepted"),
        ([[1, 2], [3, 4]], r"^images\[0\]: list of int64; accepted"),
        ((image for image in RGB), "^images: generator of object; accepted"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"^images\[0\] has shape \[8, 8, 4\]; accepted"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), r"^images has shape|^images\[0\] has shape \[2, 2"),
        (np.zeros(5, np.uint8), r"^images\[0\] has shape \[5\]"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"^images\[0\] has shape \[0, 8, 3\]"),
        (["none.png"], "^none.png: no readable image"),
    ],
)
def test_other_things_are_refused(data, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        images.from_user(given, data())
    assert "\n" not in str(caught.value)


def test_another_size_may_be_refused(data):
    with pytest.raises(ValueError, match=r"images\[0\]: the image is 5x4 pixels, but data.image_s"):
        images.from_user(np.zeros((1, 4, 5, 3), np.uint8), data(resize=False))
