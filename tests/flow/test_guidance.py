"""Guided velocities against closed forms: mixtures of Gaussians, for which all fields are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from flcl import settings
from flcl.flow.guidance import EARLIEST, by_classifier, classifier_free, factor
from flcl.flow.sampler import solve

CENTRES = np.array([[-0.8, 0.3], [0.5, 0.9], [0.4, -0.7]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
SPREAD = 0.4  # standard deviation of each class


def log_joint(x, t):
    """log p_t(x, y) of each class, [B, 3]: x_t of class y is Gaussian around t times its centre."""
    variance = (1 - t) ** 2 + (t * SPREAD) ** 2
    squares = ((x[:, None] - t[:, None, None] * CENTRES) ** 2).sum(-1)
    return np.log(WEIGHTS) - squares / (2 * variance[:, None]) - np.log(variance)[:, None]


def of_class(y, x, t):
    """E[x1 - x0 | x_t, y]: the regression of two Gaussians with the slope cov / var."""
    variance = (1 - t) ** 2 + (t * SPREAD) ** 2
    slope = (t * SPREAD**2 - (1 - t)) / variance
    return CENTRES[y] + slope[:, None] * (x - t[:, None] * CENTRES[y])


def of_all(x, t):
    posterior = np.exp(log_joint(x, t) - logsumexp(log_joint(x, t), axis=1, keepdims=True))
    return sum(posterior[:, [y]] * of_class(y, x, t) for y in range(3))


@pytest.fixture
def points():
    generator = np.random.default_rng(0)
    return generator.normal(size=(16, 2)), generator.uniform(EARLIEST, 0.95, 16)


def test_the_factor_turns_the_field_of_all_classes_into_that_of_one(points):
    """Bayes' rule: the score of a class is that of all plus the gradient of its log posterior."""
    x, t = points
    step = 1e-5

    def log_posterior(x):
        joint = log_joint(x, t)
        return joint[:, 1] - logsumexp(joint, axis=1)

    shifts = step * np.eye(2)
    gradient = [(log_posterior(x + d) - log_posterior(x - d)) / (2 * step) for d in shifts]
    guided = of_all(x, t) + np.asarray(factor(t))[:, None] * np.stack(gradient, -1)
    np.testing.assert_allclose(guided, of_class(1, x, t), atol=1e-4)


def test_a_classifier_guides_by_its_gradient_at_the_promised_image(points):
    """With v = a x + b the promised image has the slope 1 + (1 - t) a, by hand."""
    x, t = points
    a, b, goal = 0.7, -0.2, np.array([0.3, -0.5])
    towards = jnp.asarray(goal)[None]
    guided = by_classifier(
        lambda x, t: a * x + b, lambda image: -jnp.sum((image - towards) ** 2, -1) / 2, scale=1.5
    )
    v = a * x + b
    image = x + (1 - t)[:, None] * v
    gradient = (1 + (1 - t) * a)[:, None] * (goal - image)
    expected = v + 1.5 * ((1 - t) / t)[:, None] * gradient
    np.testing.assert_allclose(guided(jnp.asarray(x), jnp.asarray(t)), expected, rtol=2e-5)


def test_the_factor_stays_finite_where_the_path_begins():
    times = np.array([0.0, EARLIEST, 0.5, 1.0])
    expected = [1 / EARLIEST, (1 - EARLIEST) / EARLIEST, 1.0, 0.0]
    np.testing.assert_allclose(factor(times), expected, rtol=1e-6)


def test_guidance_without_a_classifier_weights_two_fields(points):
    x, t = points
    fields = lambda x, t: 2 * x, lambda x, t: x + 1
    for scale, expected in ((0.0, 2 * x), (1.0, x + 1), (3.0, 3 * (x + 1) - 2 * 2 * x)):
        np.testing.assert_allclose(classifier_free(*fields, scale)(x, t), expected, rtol=1e-12)


def test_guidance_raises_the_probability_of_its_target():
    """Samples of all classes, guided to one by a classifier of images without noise."""
    noise = jax.random.normal(jax.random.key(0), (64, 1, 1, 2))
    centres = jnp.asarray(CENTRES, jnp.float32)

    def log_probability(images):
        squares = jnp.sum((images.reshape(-1, 1, 2) - centres[None]) ** 2, -1)
        return jax.nn.log_softmax(jnp.log(WEIGHTS)[None] - squares / (2 * SPREAD**2))[:, 1]

    def field(x, t):
        flat, t = x.reshape(-1, 2), t[:, None]
        variance = (1 - t) ** 2 + (t * SPREAD) ** 2
        offsets = flat[:, None] - t[..., None] * centres[None]
        posterior = jax.nn.softmax(
            jnp.log(WEIGHTS)[None] - jnp.sum(offsets**2, -1) / (2 * variance)
        )[..., None]
        slope = ((t * SPREAD**2 - (1 - t)) / variance)[..., None]
        return jnp.sum(posterior * (centres[None] + slope * offsets), 1).reshape(x.shape)

    sample = settings.Sample(solver="heun", num_steps=20)
    shares = []
    for scale in (0.0, 1.0, 4.0):
        images, _ = jax.jit(
            lambda noise, scale=scale: solve(
                by_classifier(field, log_probability, scale), noise, sample
            )
        )(noise)
        shares.append(float(jnp.exp(log_probability(images)).mean()))
    assert abs(shares[0] - WEIGHTS[1]) < 0.1
    assert shares[1] > 0.7 and shares[2] > 0.95
