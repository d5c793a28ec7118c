"""Between bytes on the host and numbers on the device: scaling, flips, crops, inside the step."""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """uint8 0..255 -> float32 in [-1, 1]."""
    chex.assert_type(images, jnp.uint8)
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """float in [-1, 1], clipped, -> nearest uint8."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image of [B, H, W, C] mirrored left-right with probability 1/2."""
    chex.assert_rank(images, 4)
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """0..255 [..., 3] or [..., 1] -> float32 [..., 3]: scaled to [0, 1], then (x - mean) / std.

    A grey image becomes three equal channels first. mean, std: of each channel of [0, 1].
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def random_resized_crop(key: jax.Array, images: jax.Array, min_scale: float) -> jax.Array:
    """A random part of each image of [B, H, W, C], resized to the whole: float32 [B, H, W, C].

    As torchvision's `RandomResizedCrop`: the share of the area is uniform in [min_scale, 1], the
    logarithm of the aspect ratio uniform in that of [3/4, 4/3], sides are rounded to pixels, the
    place is uniform. Of ten draws the first that fits into the image is taken, without one the
    whole image; hence min_scale=1 changes no square image. Bilinear, with the border of the part
    repeated outside of it; a part is never larger than the result, so nothing needs antialiasing.
    """
    chex.assert_rank(images, 4)
    count, height, width, _ = images.shape
    top, left, rows, columns = _random_boxes(key, count, height, width, min_scale)
    vertical = _interpolation(top, rows, height)
    horizontal = _interpolation(left, columns, width)
    # Matrix products: gathers of single pixels are slow on accelerators.
    images = images.astype(jnp.float32)
    images = jnp.einsum("bhi,biwc->bhwc", vertical, images, precision="highest")
    return jnp.einsum("bwj,bhjc->bhwc", horizontal, images, precision="highest")


def _random_boxes(key: jax.Array, count: int, height: int, width: int, min_scale: float):
    """int32 [count] each: top, left, height and width of the part of each image."""
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    draws = (10, count)
    area = height * width * jax.random.uniform(area_key, draws, minval=min_scale, maxval=1.0)
    most = math.log(4 / 3)
    aspect = jnp.exp(jax.random.uniform(aspect_key, draws, minval=-most, maxval=most))
    columns = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    rows = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    first = jnp.argmax(fits, axis=0, keepdims=True)
    found = fits.any(axis=0)
    rows = jnp.where(found, jnp.take_along_axis(rows, first, axis=0)[0], height)
    columns = jnp.where(found, jnp.take_along_axis(columns, first, axis=0)[0], width)
    top = jax.random.randint(top_key, (count,), 0, height - rows + 1)
    left = jax.random.randint(left_key, (count,), 0, width - columns + 1)
    return top, left, rows, columns


def _interpolation(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """float32 [B, size, size]: weights of `start` .. `start + length - 1` of each result."""
    start, length = (values[:, None, None].astype(jnp.float32) for values in (start, length))
    places = (jnp.arange(size, dtype=jnp.float32)[None, :, None] + 0.5) * length / size - 0.5
    places = start + jnp.clip(places, 0.0, length - 1.0)
    sources = jnp.arange(size, dtype=jnp.float32)[None, None, :]
    return jnp.maximum(0.0, 1.0 - jnp.abs(places - sources))
