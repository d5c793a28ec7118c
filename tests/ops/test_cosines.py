"""The cheap sine and cosine, and the gradient of a sum of cosines, against numpy and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.ops import cosines
from flcl.ops.cosines import mean_of_cosines, sine_and_cosine


@pytest.mark.parametrize("largest", [0.5, 10.0, 1e3, 1e4])
def test_sine_and_cosine_are_exact_to_rounding(largest):
    z = np.random.default_rng(0).uniform(-largest, largest, 200_000).astype(np.float32)
    z[:9] = [0.0, *(np.pi / 4 * np.array([-4, -3, -2, -1, 1, 2, 3, 4]))]
    sine, cosine = jax.jit(sine_and_cosine)(z)
    exact = z.astype(np.float64)
    np.testing.assert_allclose(sine, np.sin(exact), rtol=0, atol=2e-7)
    np.testing.assert_allclose(cosine, np.cos(exact), rtol=0, atol=2e-7)


@pytest.mark.parametrize("p", [1, 4, 23])
def test_values_and_gradients_equal_those_of_the_formula(p):
    generator = np.random.default_rng(p)
    shapes = ((2, p), (2, p), (2, 6), (2, 5))  # two classes
    factors = [jnp.asarray(generator.normal(1, 1, shape), jnp.float32) for shape in shapes]
    weight = jnp.asarray(generator.normal(size=(2, 6, 5)), jnp.float32)

    def formula(alpha, omega, b, a):
        product = b[:, None] * a[None, :]
        return jnp.mean(alpha[:, None, None] * jnp.cos(omega[:, None, None] * product[None]), 0)

    def loss(function, *factors):
        return jnp.vdot(weight, jax.vmap(function)(*factors))

    np.testing.assert_allclose(
        jax.vmap(mean_of_cosines)(*factors), jax.vmap(formula)(*factors), rtol=0, atol=2e-6
    )
    every = (1, 2, 3, 4)
    got = jax.jit(jax.grad(loss, every), static_argnums=0)(mean_of_cosines, *factors)
    want = jax.grad(loss, every)(formula, *factors)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=2e-5)


def lowered_for(platform: str) -> str:
    """The program of a value and its gradient, as it is written for a platform."""
    factors = [jnp.ones(shape) for shape in (3, 3, 4, 5)]
    program = jax.jit(jax.value_and_grad(lambda *f: mean_of_cosines(*f).sum(), (0, 1, 2, 3)))
    return program.trace(*factors).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_take_the_cosine_of_the_library(platform):
    text = lowered_for(platform)
    assert "stablehlo.cosine" in text and "stablehlo.sine" in text
    assert "stablehlo.round" not in text  # nothing is reduced to a half turn


def test_a_cpu_takes_the_polynomials_bit_for_bit():
    text = lowered_for("cpu")
    assert "stablehlo.cosine" not in text and "stablehlo.round" in text
    z = np.random.default_rng(0).uniform(-50, 50, 10_000).astype(np.float32)
    for chosen, polynomial in zip(
        jax.jit(sine_and_cosine)(z), jax.jit(cosines._by_polynomials)(z), strict=True
    ):
        np.testing.assert_array_equal(chosen, polynomial)
