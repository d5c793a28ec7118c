"""The straight probability path and its regression loss (FunLoRA; conditional flow matching)."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from einops import rearrange


def sample_times(key: jax.Array, count: int, how: str) -> jax.Array:
    """Times [count] in [0, 1]: `uniform`, or `logit_normal`, which prefers the middle."""
    if how == "uniform":
        return jax.random.uniform(key, (count,))
    # Esser et al. 2024 use these times for the same kind of path.
    return jax.nn.sigmoid(jax.random.normal(key, (count,)))


def interpolate(noise: jax.Array, images: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Point x_t = (1 - t) x0 + t z and target velocity z - x0, for [B, H, W, C] and t [B]."""
    chex.assert_equal_shape([noise, images])
    chex.assert_shape(t, (len(images),))
    t = t.reshape(-1, *[1] * (images.ndim - 1))
    # Without added noise on the path (sigma = 0): the velocity is the same at every t.
    return (1 - t) * noise + t * images, images - noise


def class_transport(noise: jax.Array, images: jax.Array, groups: int) -> jax.Array:
    """Noise, reordered inside each class group to minimise the total squared distance.

    Pairs across classes are not allowed, because then the noise would depend on the class (F7).
    Batches are n-major, [n * G, H, W, C].
    """
    chex.assert_equal_shape([noise, images])
    batch = "(n g) h w c -> g n (h w c)"
    rows, targets = (rearrange(v, batch, g=groups) for v in (noise, images))

    def reorder(sources, goals):
        cost = jnp.sum((goals[:, None] - sources[None]) ** 2, axis=-1)
        # Exact, and part of the step: a class has few images in a batch.
        goal, source = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros_like(sources).at[goal].set(sources[source])

    reordered = jax.vmap(reorder)(rows, targets)
    _, height, width, _ = noise.shape
    return rearrange(reordered, "g n (h w c) -> (n g) h w c", h=height, w=width)


class Points(NamedTuple):
    """Points on the paths, and the target velocity there.

    Attributes:
      x: x_t [B, H, W, C].
      t: times [B].
      velocity: the target z - x0 [B, H, W, C].
    """

    x: jax.Array
    t: jax.Array
    velocity: jax.Array


def draw_points(key: jax.Array, images: jax.Array, groups: int, flow) -> Points:
    """Points on the paths from new noise to images.

    Args:
      key: random key of noise and times; one per step.
      images: z [B, H, W, C] in [-1, 1], n-major over `groups` classes.
      flow: `settings.Flow`.
    """
    key_noise, key_time = jax.random.split(key)
    # For the whole batch, before it is divided: the numbers do not depend on devices or parts.
    noise = jax.random.normal(key_noise, images.shape)
    if flow.coupling == "class_ot":
        noise = class_transport(noise, images, groups)
    t = sample_times(key_time, images.shape[0], flow.time)
    x, velocity = interpolate(noise, images, t)
    return Points(x, t, velocity)


def flow_loss(velocity: Callable, points: Points) -> jax.Array:
    """Mean squared error of `velocity(x, t)`, ([B, H, W, C], [B]) -> [B, H, W, C]."""
    # Conditional flow matching (Lipman et al. 2023): the field with the smallest loss moves noise
    # to the distribution of the images.
    return jnp.mean((velocity(points.x, points.t) - points.velocity) ** 2)
