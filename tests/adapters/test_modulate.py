"""Every strategy of the class-modulated convolution against a loop over single images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from flcl.adapters.modulate import (
    STRATEGIES,
    Modulation,
    modulated_conv,
    modulated_kernel,
    upsampled_conv,
)
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.ops.convolution import repeated


def case(groups, per_group=2, size=6, cin=5, cout=4, k=3, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(per_group * groups, size, size, cin))
    kernel = generator.normal(size=(k, k, cin, cout))
    matrix = generator.normal(1, 0.5, size=(groups, cin, cout))
    return tuple(jnp.asarray(v, jnp.float32) for v in (x, kernel, matrix))


def naive(x, kernel, matrix, stride, add):
    """Image by image, pixel by pixel; image i * G + g belongs to class g."""
    x, kernel, matrix = (np.asarray(v, np.float64) for v in (x, kernel, matrix))
    k, pad = kernel.shape[0], kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    size = -(-x.shape[1] // stride)
    out = np.zeros((len(x), size, size, kernel.shape[-1]))
    for i in range(len(x)):
        f = matrix[i % len(matrix)]
        own = kernel + f if add else kernel * f
        for row in range(size):
            for column in range(size):
                top, left = row * stride, column * stride
                window = padded[i, top : top + k, left : left + k]
                out[i, row, column] = np.einsum("hwi,hwio->o", window, own)
    return out


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize("add", [False, True])
def test_values_equal_the_naive_loop(strategy, groups, k, stride, add):
    x, kernel, matrix = case(groups, k=k)
    got = modulated_conv(x, kernel, Modulation(matrix, add), stride=stride, strategy=strategy)
    np.testing.assert_allclose(got, naive(x, kernel, matrix, stride, add), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_equal_those_of_single_images(strategy, stride):
    x, kernel, matrix = case(3)

    def loss(x, kernel, matrix):
        out = modulated_conv(x, kernel, Modulation(matrix), stride=stride, strategy=strategy)
        return jnp.sum(jnp.sin(out))

    def reference(x, kernel, matrix):
        total = 0.0
        for i in range(x.shape[0]):
            own = Modulation(matrix[i % 3][None])
            total += jnp.sum(jnp.sin(modulated_conv(x[i : i + 1], kernel, own, stride=stride)))
        return total

    got = jax.grad(loss, argnums=(0, 1, 2))(x, kernel, matrix)
    want = jax.grad(reference, argnums=(0, 1, 2))(x, kernel, matrix)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_vanilla_product_is_scale_conv_scale(stride):
    x, kernel, _ = case(3)
    generator = np.random.default_rng(5)
    b = jnp.asarray(generator.normal(1, 0.2, (3, 5)), jnp.float32)
    a = jnp.asarray(generator.normal(1, 0.2, (3, 4)), jnp.float32)
    separable = Modulation(scale_in=b, scale_out=a)
    outer = Modulation(b[:, :, None] * a[:, None, :])
    np.testing.assert_allclose(
        modulated_conv(x, kernel, separable, stride=stride),
        modulated_conv(x, kernel, outer, stride=stride),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        modulated_kernel(kernel, separable), modulated_kernel(kernel, outer), rtol=1e-6
    )


def test_the_loop_does_not_gather_the_batch_across_devices():
    mesh = meshes.make_mesh()
    x, kernel, matrix = case(2, per_group=8)

    def loss(x, kernel, matrix):
        return jnp.sum(modulated_conv(x, kernel, Modulation(matrix), strategy="loop") ** 2)

    spread, same = sharding.over_devices(mesh), sharding.replicated(mesh)
    assert isinstance(spread, NamedSharding)
    compiled = (
        jax.jit(jax.grad(loss, argnums=(1, 2)), in_shardings=(spread, same, same))
        .lower(x, kernel, matrix)
        .compile()
    )
    text = compiled.as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text


@pytest.mark.parametrize("groups", [None, 1, 3])
@pytest.mark.parametrize("add", [False, True])
def test_the_upsampled_convolution_is_that_of_repeated_pixels(groups, add):
    x, kernel, matrix = case(groups or 1)
    modulation = groups and Modulation(matrix, add)

    def direct(x, kernel, matrix):
        own = Modulation(matrix, add) if groups else Modulation(jnp.ones_like(matrix))
        return modulated_conv(repeated(x), kernel, own, strategy="taps")

    def loss(x, kernel, matrix):
        own = modulation and Modulation(matrix, add)
        return jnp.sum(jnp.sin(upsampled_conv(x, kernel, own, strategy="loop")))

    big = np.asarray(x).repeat(2, axis=1).repeat(2, axis=2)
    one = matrix if groups else jnp.ones_like(matrix)
    got = upsampled_conv(x, kernel, modulation, strategy="loop")
    want = naive(big, kernel, one, 1, bool(groups) and add)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    got = jax.grad(loss, argnums=(0, 1, 2))(x, kernel, matrix)
    want = jax.grad(lambda *v: jnp.sum(jnp.sin(direct(*v))), argnums=(0, 1, 2))(x, kernel, matrix)
    for g, w in list(zip(got, want, strict=True))[: 3 if groups else 2]:
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


def test_bad_input_is_named():
    x, kernel, matrix = case(2)
    with pytest.raises(ValueError, match="strategy='fast'.*loop"):
        modulated_conv(x, kernel, Modulation(matrix), strategy="fast")
    with pytest.raises(ValueError, match="batch of 3 images.*2 class groups"):
        modulated_conv(x[:3], kernel, Modulation(matrix))
