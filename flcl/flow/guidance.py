"""Guidance of a velocity field: by a classifier, or by the field without a class.

The published methods guide diffusion models, which predict the noise. What follows is the same for
the straight path x_t = (1 - t) x0 + t x1, with x0 from N(0, I) at t = 0 and the image x1 at t = 1.

The field is v(x, t) = E[x1 - x0 | x_t = x]. Because x = (1 - t) E[x0 | x] + t E[x1 | x],

    E[x1 | x] = x + (1 - t) v    (the image that the velocity promises)
    E[x0 | x] = x - t v.

Given x1, x_t is Gaussian with mean t x1 and variance (1 - t)^2, so the score is
grad log p_t(x) = -E[x0 | x] / (1 - t) (Tweedie's formula), and

    v(x, t) = (x + (1 - t) grad log p_t(x)) / t.

Bayes' rule adds grad log p_t(y | x) to the score of a class y. So it adds

    (1 - t) / t * grad log p_t(y | x)

to the velocity (Dhariwal & Nichol 2021 for the score; Zheng et al. 2023 for flows).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Velocity = Callable[[jax.Array, jax.Array], jax.Array]

EARLIEST = 0.05
"""The smallest t in the factor (1 - t) / t.

At t = 0 nothing of x tells the class, and the product of the factor and the true gradient is
finite. A learned gradient does not vanish there, so the factor must be finite by itself (ours). In
diffusion the first step of the schedule has the same role.
"""


def factor(t: jax.Array) -> jax.Array:
    """(1 - t) / t for times t in [0, 1]: what a gradient of log p(y | x_t) adds to a velocity."""
    return (1.0 - t) / jnp.maximum(t, EARLIEST)


def promised(velocity: Velocity, x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """v and the image E[x1 | x] = x + (1 - t) v, both [B, H, W, C], at x [B, H, W, C], t [B]."""
    v = velocity(x, t)
    return v, x + (1.0 - t).reshape(-1, *[1] * (x.ndim - 1)) * v


def by_classifier(
    velocity: Velocity, log_probability: Callable[[jax.Array], jax.Array], scale: float
) -> Velocity:
    """The field v + scale (1 - t) / t grad log p(y | E[x1 | x]).

    The classifier knows images without noise, so it sees the image that the velocity promises, and
    the gradient goes through the network. Public code of GUIDE does the same with the image that
    the predicted noise promises.

    Args:
      velocity: the field without guidance.
      log_probability: images [B, H, W, C] near [-1, 1] -> log p of the wanted class, [B].
      scale: 0 = no guidance; 1 = Bayes' rule if the classifier is right.
    """

    def guided(x, t):
        def total(x):
            v, image = promised(velocity, x, t)
            # The images of a batch do not depend on each other: the gradient of the sum has the
            # gradient of each.
            return jnp.sum(log_probability(image)), v

        gradient, v = jax.grad(total, has_aux=True)(x)
        return v + scale * factor(t).reshape(-1, *[1] * (x.ndim - 1)) * gradient

    return guided


def classifier_free(unconditional: Velocity, conditional: Velocity, scale: float) -> Velocity:
    """The field v0 + scale (v - v0): 0 = `unconditional` v0, 1 = `conditional` v (Ho & Salimans).

    The score is a linear function of the velocity with the same factors for both fields, so the
    weights are those of the published rule for scores.
    """

    def guided(x, t):
        v0 = unconditional(x, t)
        return v0 + scale * (conditional(x, t) - v0)

    return guided
