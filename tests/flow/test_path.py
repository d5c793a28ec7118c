"""The probability path and its loss, against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.flow import path


def test_the_path_is_straight_from_noise_to_image():
    noise, images = jnp.full((3, 2, 2, 1), -1.0), jnp.full((3, 2, 2, 1), 3.0)
    point, velocity = path.interpolate(noise, images, jnp.asarray([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(point[:, 0, 0, 0], [-1.0, 0.0, 3.0])
    np.testing.assert_allclose(velocity, np.full((3, 2, 2, 1), 4.0))


@pytest.mark.parametrize(("how", "spread"), [("uniform", 12**-0.5), ("logit_normal", 0.2083)])
def test_times_have_the_named_distribution(how, spread):
    t = path.sample_times(jax.random.key(0), 100_000, how)
    assert 0 <= t.min() and t.max() <= 1
    np.testing.assert_allclose(t.mean(), 0.5, atol=5e-3)
    np.testing.assert_allclose(t.std(), spread, atol=5e-3)


def test_the_loss_of_the_exact_field_of_one_point_is_zero():
    """Data is the single image z: v(x, t) = (z - x) / (1 - t) regresses z - x0 exactly."""
    z = jnp.linspace(-1, 1, 4).reshape(1, 2, 2, 1)
    images = jnp.repeat(z, 64, axis=0)

    def exact(x, t):
        return (z - x) / (1 - t)[:, None, None, None]

    points = path.draw_points(jax.random.key(0), images, 2, settings.Flow())
    loss = path.flow_loss(exact, points)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    other = path.flow_loss(lambda x, t: 0 * x, points)
    np.testing.assert_allclose(other, 1.0 + float((z**2).mean()), rtol=0.15)


def test_transport_is_the_cheapest_pairing_inside_each_class():
    generator = np.random.default_rng(0)
    per_group, groups = 4, 2
    noise = generator.normal(size=(per_group * groups, 2, 1, 1)).astype(np.float32)
    images = generator.normal(size=noise.shape).astype(np.float32)
    got = np.asarray(path.class_transport(jnp.asarray(noise), jnp.asarray(images), groups))

    def cost(a, b):
        return ((a - b) ** 2).sum()

    for g in range(groups):
        sources, goals = noise[g::groups], images[g::groups]
        best = min(
            sum(cost(sources[s], goals[i]) for i, s in enumerate(order))
            for order in itertools.permutations(range(per_group))
        )
        paired = sum(cost(got[g::groups][i], goals[i]) for i in range(per_group))
        np.testing.assert_allclose(paired, best, rtol=1e-5)
        used = {tuple(v.ravel()) for v in got[g::groups]}
        assert used == {tuple(v.ravel()) for v in sources}


def test_transport_lowers_the_loss_of_the_marginal_field():
    images = jnp.asarray(np.random.default_rng(1).normal(size=(64, 2, 2, 1)), jnp.float32)

    def zero(x, t):
        return 0 * x

    losses = [
        path.flow_loss(
            zero, path.draw_points(jax.random.key(0), images, 2, settings.Flow(coupling=c))
        )
        for c in ("independent", "class_ot")
    ]
    assert losses[1] < 0.8 * losses[0]
