"""Pairs of noise and images, and points on the lines between them."""

import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings
from flcl.flow import straight
from flcl.flow.sampler import noise_of

SHAPE = (4, 4, 1)


def test_pairs_are_noise_and_where_the_field_moves_it():
    """dx/dt = c x: the midpoint rule multiplies by 1 + c h + (c h)^2 / 2 in a step of length h."""
    sample = settings.Sample(solver="midpoint", num_steps=2)
    draw = straight.make_pair_sampler(lambda c: lambda x, t: c * x, SHAPE, sample)
    key, indices = jax.random.key(3), jnp.arange(5)
    pairs = np.asarray(jax.jit(draw)(0.8, key, 7, indices))
    noise = np.asarray(noise_of(key, 7, indices, SHAPE))
    np.testing.assert_array_equal(pairs[:, 0], noise)
    np.testing.assert_allclose(pairs[:, 1], noise * (1 + 0.4 + 0.08) ** 2, rtol=1e-5)
    # Neither rounded to 256 values nor clipped.
    assert np.abs(pairs[:, 1]).max() > 1


def test_points_are_on_the_line_and_the_target_is_its_slope():
    pairs = np.random.default_rng(0).normal(size=(300, 2, *SHAPE)).astype(np.float32)
    points = straight.draw_points(jax.random.key(1), jnp.asarray(pairs))
    t = np.asarray(points.t)[:, None, None, None]
    np.testing.assert_array_equal(points.velocity, pairs[:, 1] - pairs[:, 0])
    np.testing.assert_allclose(
        points.x, pairs[:, 0] + t * (pairs[:, 1] - pairs[:, 0]), rtol=1e-5, atol=1e-6
    )
    # Uniform times: each quarter has a quarter of them, within four standard deviations.
    counts = np.histogram(points.t, 4, (0, 1))[0]
    assert np.abs(counts - 75).max() < 4 * np.sqrt(300 * 3 / 16)
