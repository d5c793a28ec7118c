"""Crops and normalisation on the device, against loops and Pillow."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flcl.ops import pixels

IMAGES = np.random.RandomState(0).randint(0, 256, (12, 16, 16, 3)).astype(np.uint8)


@jax.jit
def crop(key, images):
    return pixels.random_resized_crop(key, images, 0.1)


@jax.jit
def boxes(key):
    return jnp.stack(pixels._random_boxes(key, 20_000, 40, 40, 0.1))


def test_a_crop_is_a_part_resized_by_pillow():
    key = jax.random.key(3)
    found = np.asarray(crop(key, IMAGES))
    assert found.shape == IMAGES.shape and found.dtype == np.float32
    parts = np.stack(pixels._random_boxes(key, 12, 16, 16, 0.1), 1).tolist()
    assert len({tuple(part) for part in parts}) > 8
    for image, result, (top, left, rows, columns) in zip(IMAGES, found, parts, strict=True):
        for channel in range(3):
            part = image[top : top + rows, left : left + columns, channel].astype(np.float32)
            resized = Image.fromarray(part).resize((16, 16), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(result[..., channel], np.asarray(resized), atol=1e-2)


def test_parts_are_drawn_as_torchvision_does():
    """Moments of 20,000 draws against those of its published loop, written out in NumPy."""
    top, left, rows, columns = np.asarray(boxes(jax.random.key(0)))
    random = np.random.RandomState(0)
    naive = []
    for _ in range(20_000):
        for _ in range(10):
            area = 1600 * random.uniform(0.1, 1.0)
            aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < w <= 40 and 0 < h <= 40:
                naive.append((random.randint(0, 40 - h + 1), random.randint(0, 40 - w + 1), h, w))
                break
        else:
            naive.append((0, 0, 40, 40))
    expected = np.array(naive).T
    for found, reference in zip((top, left, rows, columns), expected, strict=True):
        assert abs(found.mean() - reference.mean()) < 0.3  # 4 standard errors
        assert abs(found.std() - reference.std()) < 0.3
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= 40).all() and (left + columns <= 40).all()
    share = rows * columns / 1600
    assert 0.08 < share.min() < 0.12 and share.max() == 1.0
    assert 0.7 < (columns / rows).min() and (columns / rows).max() < 1.45


def test_the_whole_area_changes_nothing():
    for seed in range(5):
        found = pixels.random_resized_crop(jax.random.key(seed), IMAGES, 1.0)
        np.testing.assert_array_equal(found, IMAGES)


def test_crops_depend_on_the_key_alone_and_differ_between_images():
    same = jnp.asarray(np.repeat(IMAGES[:1], 12, axis=0))
    found = np.asarray(crop(jax.random.key(1), same))
    np.testing.assert_array_equal(found, crop(jax.random.key(1), same))
    assert (found != np.asarray(crop(jax.random.key(2), same))).any()
    assert collections.Counter(image.tobytes() for image in found).most_common()[0][1] < 4


def test_images_that_are_not_square():
    wide = jnp.asarray(IMAGES[:, :8])
    found = crop(jax.random.key(0), wide)
    assert found.shape == wide.shape and 0 <= found.min() and found.max() <= 255


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_normalize(kind):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = np.asarray(pixels.normalize(jnp.asarray(IMAGES.astype(kind)), mean, std))
    assert found.dtype == np.float32
    for channel in range(3):
        expected = (IMAGES[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(found[..., channel], expected, rtol=1e-5, atol=1e-6)


def test_grey_becomes_three_channels():
    grey = jnp.asarray(IMAGES[..., :1])
    found = np.asarray(pixels.normalize(grey, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5)))
    rgb = pixels.normalize(jnp.repeat(grey, 3, axis=-1), (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
    assert found.shape == (12, 16, 16, 3)
    np.testing.assert_array_equal(found, rgb)
