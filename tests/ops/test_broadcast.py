"""Gradients of broadcast parameters: within 0.5 % of the float64 sum of the bfloat16 gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.ops import broadcast
from flcl.ops.linear import linear, product

SHAPE = (32, 24, 24, 16)
ROWS = SHAPE[1:]


def bfloat16(*shape, seed=0, mean=0.3):
    values = mean + np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.bfloat16)


def wide(x):
    return np.asarray(x, np.float64)


X, GRAD = bfloat16(*SHAPE), bfloat16(*SHAPE, seed=1)
OVER_PIXELS, OVER_IMAGES = (0, 1, 2), (0,)

# Name -> (operation of one parameter, shape of the parameter, its gradient in float64).
KINDS = {
    "bias": (lambda v: broadcast.add(X, v), (16,), lambda v: wide(GRAD).sum(OVER_PIXELS)),
    "position": (lambda v: broadcast.add(X, v), ROWS, lambda v: wide(GRAD).sum(OVER_IMAGES)),
    "shift of each image": (
        lambda v: broadcast.add(X, v),
        (32, 1, 1, 16),
        lambda v: wide(GRAD).sum((1, 2), keepdims=True),
    ),
    "scale": (
        lambda v: broadcast.multiply(X, v),
        (16,),
        lambda v: (wide(GRAD) * wide(X)).sum(OVER_PIXELS),
    ),
    "scale of each image": (
        lambda v: broadcast.multiply(X, v),
        (32, 1, 1, 16),
        lambda v: (wide(GRAD) * wide(X)).sum((1, 2), keepdims=True),
    ),
    "sum of a softmax": (
        lambda v: broadcast.divide(X, v),
        (*SHAPE[:3], 1),
        lambda v: (-wide(GRAD) * wide(X)).sum(-1, keepdims=True) / wide(v) ** 2,
    ),
    "prompt": (
        lambda v: broadcast.repeat(v, 32, jnp.bfloat16),
        ROWS,
        lambda v: wide(GRAD).sum(OVER_IMAGES),
    ),
    "matrix": (
        lambda v: linear(X, v),
        (16, 16),
        lambda v: np.einsum("bhwi,bhwo->io", wide(X), wide(GRAD)),
    ),
    "matrix of pixels": (
        lambda v: product(X, v),
        (16, 16),
        lambda v: np.einsum("bhwi,bhwo->io", wide(X), wide(GRAD)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_in_bfloat16_is_the_sum_in_float64(kind):
    operation, shape, expected = KINDS[kind]
    values = jnp.asarray(1 + np.random.default_rng(2).uniform(size=shape), jnp.float32)
    out, backward = jax.vjp(operation, values)
    assert out.dtype == jnp.bfloat16
    (got,) = jax.jit(backward)(GRAD)
    assert got.dtype == jnp.float32 and got.shape == shape
    want = expected(values)
    assert np.linalg.norm(wide(got) - want) < 5e-3 * np.linalg.norm(want)


def test_in_float32_the_operations_are_the_plain_ones():
    x, values = X.astype(jnp.float32), jnp.arange(1.0, 17)
    row = values[None, None, None]
    np.testing.assert_array_equal(broadcast.add(x, values), x + row)
    np.testing.assert_array_equal(broadcast.multiply(x, values), x * row)
    np.testing.assert_array_equal(broadcast.divide(x, values), x / row)
    np.testing.assert_array_equal(broadcast.repeat(values, 3, jnp.float32), [values] * 3)
    matrix = jnp.eye(16)
    np.testing.assert_array_equal(linear(x, matrix), x @ matrix)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError, match="broadcast"):
        broadcast.add(X, jnp.ones(5))
