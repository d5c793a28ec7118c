"""The layers around the convolutions against flax's, and against counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.models.unet_layers import Attention, Dropout, GroupNorm
from flcl.ops.linear import product


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_group_normalisation_is_that_of_flax():
    x, weight = 3 + 2 * normal(3, 4, 5, 12), normal(3, 4, 5, 12, seed=1)
    parameters = {"scale": normal(12, seed=2), "bias": normal(12, seed=3)}

    def loss(module, parameters, x):
        return jnp.vdot(module.apply({"params": parameters}, x), weight)

    ours, theirs = GroupNorm(4), nn.GroupNorm(4, epsilon=1e-5)
    got = jax.value_and_grad(loss, (1, 2))(ours, parameters, x)
    want = jax.value_and_grad(loss, (1, 2))(theirs, parameters, x)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio", [1, 100, 1000, 5000])
def test_a_large_mean_does_not_spoil_the_variance(ratio):
    """The mean of squares minus the square of the mean is wrong by 20 % at a ratio of 1,000."""
    x = jnp.asarray(ratio + np.random.default_rng(0).normal(size=(2, 8, 8, 12)), jnp.float32)
    weight, parameters = normal(2, 8, 8, 12, seed=1), {"scale": jnp.ones(12), "bias": jnp.zeros(12)}

    def plain(x):
        groups = x.reshape(2, 8, 8, 4, 3)
        centred = groups - groups.mean(axis=(1, 2, 4), keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=(1, 2, 4), keepdims=True) + 1e-5)
        return scaled.reshape(x.shape)

    got = GroupNorm(4).apply({"params": parameters}, x)
    np.testing.assert_allclose(got, plain(np.asarray(x, np.float64)), atol=3e-7 * (10 + ratio))
    # The gradient does not depend on the mean of a group, so it is that of the deviations.
    slope = jax.grad(lambda x: jnp.vdot(GroupNorm(4).apply({"params": parameters}, x), weight))
    centred = np.asarray(x, np.float64) - ratio
    np.testing.assert_allclose(slope(x), slope(jnp.asarray(centred, jnp.float32)), atol=2e-3)


def drop(x, images, rate=0.25, seed=0):
    return Dropout(rate).apply({}, x, images, rngs={"dropout": jax.random.key(seed)})


def test_dropout_leaves_out_its_share_and_scales_the_rest():
    out = np.asarray(drop(jnp.ones((64, 16, 16, 5)), jnp.arange(64)))
    assert set(np.unique(out)) == {0.0, np.float32(4 / 3)}
    per_image = (out == 0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(per_image.mean(), 0.25, atol=6e-3)
    np.testing.assert_allclose(per_image.std(), (0.25 * 0.75 / 1280) ** 0.5, rtol=0.3)
    patterns = (out == 0).reshape(64, -1).astype(np.float64)
    related = np.corrcoef(patterns) - np.eye(64)
    assert np.abs(related).max() < 0.3  # 64 images, 64 patterns: 5 standard deviations
    assert (out != np.asarray(drop(jnp.ones((64, 16, 16, 5)), jnp.arange(64), seed=1))).any()


def test_what_dropout_leaves_out_follows_the_image():
    x, order = normal(6, 3, 3, 1), np.array([4, 1, 5])
    whole = drop(x, jnp.arange(6))
    np.testing.assert_array_equal(drop(x[order], order), whole[order])


@pytest.mark.parametrize(("images", "rate"), [(None, 0.5), (jnp.arange(2), 0.0)])
def test_without_training_or_share_nothing_is_left_out(images, rate):
    x = normal(2, 3, 3, 4)
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, images), x)


def test_the_product_has_the_gradients_of_a_product():
    x, matrix, weight = normal(2, 3, 5), normal(5, 4, seed=1), normal(2, 3, 4, seed=2)
    got = jax.grad(lambda x, m: jnp.vdot(weight, product(x, m)), (0, 1))(x, matrix)
    want = jax.grad(lambda x, m: jnp.vdot(weight, x @ m), (0, 1))(x, matrix)
    np.testing.assert_allclose(product(x, matrix), x @ matrix, rtol=1e-5, atol=1e-5)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def test_attention_is_a_softmax_over_all_pixels_in_each_head():
    x, module = normal(2, 3, 4, 16), Attention(head_channels=4)
    parameters = module.init(jax.random.key(0), x)["params"]
    kernel = normal(16, 16, seed=5)
    parameters["out"]["kernel"] = kernel  # zero at the start
    parameters["qkv"]["kernel"] = 3 * parameters["qkv"]["kernel"]
    got = module.apply({"params": parameters}, x)
    normed = nn.GroupNorm(4, epsilon=1e-5).apply({"params": parameters["norm"]["GroupNorm_0"]}, x)
    q, k, v = np.split(normed.reshape(2, 12, 16) @ parameters["qkv"]["kernel"], 3, axis=-1)
    out = np.zeros((2, 12, 16))
    for image in range(2):
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            scores = q[image, :, part] @ k[image, :, part].T / 2.0
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[image, :, part] = weights / weights.sum(axis=1, keepdims=True) @ v[image, :, part]
    want = x + (out @ kernel).reshape(x.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
