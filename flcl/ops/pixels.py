"""Scaling, flips and crops of images on the device, inside the compiled step."""

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
    """float, clipped to [-1, 1], -> nearest uint8."""
    # Rounded and not cut off, which would make all images darker by half a level.
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image of [B, H, W, C] left-right with probability 1/2."""
    chex.assert_rank(images, 4)
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """0..255 [..., 3] or [..., 1] -> float32 [..., 3]: scaled to [0, 1], then (x - mean) / std.

    A grey image first becomes three equal channels. mean, std: for each channel, in [0, 1].
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def random_resized_crop(key: jax.Array, images: jax.Array, min_scale: float) -> jax.Array:
    """A random box of each image of [B, H, W, C], resized to the full size: float32 [B, H, W, C].

    Like torchvision's `RandomResizedCrop`: the share of the area is uniform in [min_scale, 1], the
    logarithm of the aspect ratio is uniform in the logarithms of [3/4, 4/3], sides are rounded to
    pixels, and the place is uniform. The first of ten random boxes that fits into the image is
    used, or the whole image if no box fits; so min_scale=1 changes no square image. The resize is
    bilinear and repeats the border of the box. A box is never larger than the result, so no
    antialiasing is needed.
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
    """Top, left, height and width of the box in each image, int32 [count] each."""
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    # All ten attempts at once: in a compiled step, images cannot stop at different attempts.
    draws = (10, count)
    area = height * width * jax.random.uniform(area_key, draws, minval=min_scale, maxval=1.0)
    most = math.log(4 / 3)
    aspect = jnp.exp(jax.random.uniform(aspect_key, draws, minval=-most, maxval=most))
    columns = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    rows = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    first = jnp.argmax(fits, axis=0, keepdims=True)
    some_fit = fits.any(axis=0)
    rows = jnp.where(some_fit, jnp.take_along_axis(rows, first, axis=0)[0], height)
    columns = jnp.where(some_fit, jnp.take_along_axis(columns, first, axis=0)[0], width)
    top = jax.random.randint(top_key, (count,), 0, height - rows + 1)
    left = jax.random.randint(left_key, (count,), 0, width - columns + 1)
    return top, left, rows, columns


def _interpolation(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Weights float32 [B, size, size] of the pixels `start` .. `start + length - 1`."""
    start, length = (values[:, None, None].astype(jnp.float32) for values in (start, length))
    # Pixel centres are at half numbers, as in Pillow and torchvision.
    places = (jnp.arange(size, dtype=jnp.float32)[None, :, None] + 0.5) * length / size - 0.5
    places = start + jnp.clip(places, 0.0, length - 1.0)
    sources = jnp.arange(size, dtype=jnp.float32)[None, None, :]
    return jnp.maximum(0.0, 1.0 - jnp.abs(places - sources))
