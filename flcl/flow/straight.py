"""Pairs of noise and images whose paths are to become straight: reflow (Liu et al. 2022).

The trained model moves every noise to one image. A model that is trained on the straight line
between the two ends needs few evaluations, because a straight path has one velocity everywhere.
"""

import chex
import jax
import jax.numpy as jnp
from einops import rearrange

from flcl import settings
from flcl.flow.path import Points, interpolate, sample_times
from flcl.flow.sampler import noise_of, solve


def make_pair_sampler(velocity_of, shape, sample: settings.Sample, constrain=lambda x: x):
    """The function that draws a chunk of pairs of one class; the caller compiles it.

    Arguments are those of `sampler.make_sampler`. Returns (class parameters, key, label, indices
    [B]) -> float32 [B, 2, H, W, C]: the noise and the image, which is neither rounded nor clipped.
    """

    def draw(class_parameters, key, label, indices):
        velocity = jax.jit(velocity_of(class_parameters))  # solvers trace their field often
        noise = constrain(noise_of(key, label, indices, shape))
        images, _ = solve(velocity, noise, sample)
        return constrain(jnp.stack([noise, images], axis=1))

    return draw


def draw_points(key: jax.Array, pairs: jax.Array) -> Points:
    """Points on the lines of pairs [B, 2, H, W, C], at uniform times."""
    chex.assert_axis_dimension(pairs, 1, 2)
    noise, images = rearrange(pairs, "b ends h w c -> ends b h w c")
    # Uniform whatever `flow.time` is: one or two evaluations are made near t = 0.
    t = sample_times(key, len(pairs), "uniform")
    x, velocity = interpolate(noise, images, t)
    return Points(x, t, velocity)
