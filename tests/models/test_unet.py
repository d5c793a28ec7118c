"""The U-Net's exact counts as the paper prints them, and what the class can and cannot reach."""

import math
import re
import zlib
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.adapters import functional
from flcl.adapters.functions import FAMILIES
from flcl.models.convolutions import abstract_parameters, convolutions
from flcl.models.unet import UNet, time_embedding
from flcl.models.unet_layers import Conv

CIFAR = UNet(settings.UNet(), 3)
IMAGENET = UNet(settings.UNet(multipliers=(1, 2, 3, 4), attention=(32, 16, 8)), 3)
TINY = settings.UNet(width=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)
FLAT = settings.UNet(width=8, multipliers=(1,), blocks=1, attention=(), head_channels=8)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def channels(convs):
    return sum(conv.shape[2] + conv.shape[3] for conv in convs)


def test_cifar_counts():
    convs = convolutions(CIFAR, 32)
    assert len(convs) == 65
    assert count(abstract_parameters(CIFAR, 32)) == 35_746_307
    assert channels(convs) == 34_054
    assert channels(convs[40:55]) == 9_728


def test_imagenet_counts():
    convs = convolutions(IMAGENET, 64)
    assert len(convs) == 67
    assert count(abstract_parameters(IMAGENET, 64)) == 89_535_619
    assert channels(convs) == 50_694


def test_convolutions_are_numbered_as_in_the_paper():
    names = {conv.index: conv.name for conv in convolutions(CIFAR, 32)}
    assert names[0] == "input" and names[64] == "output"
    assert names[5] == "encoder_0_down" and names[8] == "encoder_1_0/skip"
    assert names[34] == "decoder_3_up" and names[44] == "decoder_2_up"
    assert names[40] == "decoder_2_1/skip" and names[54] == "decoder_1_up"


@pytest.mark.parametrize(("window", "expected"), [((0, 65), 35_354), ((40, 55), 10_028)])
def test_parameters_per_class(window, expected):
    layers = {c.name: c.shape[2:] for c in convolutions(CIFAR, 32)[slice(*window)]}
    rows = jax.eval_shape(
        lambda key: functional.init_rows(key, layers, "cosine_learnable", np.arange(1), 10, 0.3),
        jax.random.key(0),
    )
    assert count(rows) == expected


@pytest.mark.parametrize("size", [8, 12, 16])
def test_shapes(size):
    model = UNet(TINY, 1)
    variables = {"params": abstract_parameters(model, size)}
    out = jax.eval_shape(model.apply, variables, jnp.zeros((3, size, size, 1)), jnp.zeros(3))
    assert out.shape == (3, size, size, 1) and out.dtype == jnp.float32


def test_time_embedding_against_its_formula():
    got = time_embedding(jnp.asarray([0.0, 0.7]), 8)
    frequencies = [10_000 ** (-i / 4) for i in range(4)]
    want = [[f(t * w) for f in (math.cos, math.sin) for w in frequencies] for t in (0.0, 0.7)]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


KINDS = (
    "input",
    "encoder_0_0/conv2",
    "encoder_0_down",
    "decoder_1_0/skip",
    "decoder_1_up",
    "output",
)
"""A convolution of each kind in `TINY`: what compiles grows with the adapted ones."""


def layers_of(model, names=KINDS):
    """{name: (input, output channels)} of some convolutions."""
    layers = {c.name: c.shape[2:] for c in convolutions(model, 8) if c.name in names}
    assert layers.keys() == set(names)
    return layers


def filled(abstract, seed=0):
    """Parameters without zeros, so that every part of the model matters."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(generator.normal(0, 0.2, v.shape), v.dtype), abstract)


def moved(rows, seed):
    """Factors some way from their start."""
    return jax.tree.map(lambda v, n: v + 0.3 * n, rows, filled(rows, seed))


class Kinds(nn.Module):
    """A convolution of each kind: a network of them compiles in a tenth of the time of `TINY`."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(Conv(4, name="input")(x))
        x = jnp.tanh(Conv(6, size=1, name="skip")(x))
        x = jnp.tanh(Conv(6, stride=2, name="down")(x))
        x = jnp.tanh(Conv(4, upsample=True, name="up")(x))
        return Conv(1, name="output")(x)


def check_merged(apply, params, layers, family):
    """`apply(variables, x, t)` of a batch of two classes is that of their merged networks."""
    rows = moved(functional.init_rows(jax.random.key(1), layers, family, np.arange(2), 10, 0.3), 2)
    x = jax.random.normal(
        jax.random.key(3), (4, 8, 8, 1)
    )  # images 0, 2 of class 0; 1, 3 of class 1
    t = jnp.asarray([0.1, 0.4, 0.6, 0.9])

    @jax.jit
    def modulated(rows):
        modulation = functional.modulation_collection(rows, family)
        return apply({"params": params, "modulation": modulation}, x, t)

    @jax.jit
    def merged(factors, x, t):
        return apply({"params": functional.merge(params, factors, family)}, x, t)

    mixed = modulated(rows)
    for g in range(2):
        alone = merged(jax.tree.map(lambda v, g=g: v[g], rows), x[g::2], t[g::2])
        np.testing.assert_allclose(mixed[g::2], alone, rtol=2e-4, atol=2e-4)
    return x, mixed


def test_merged_kernels_equal_the_modulated_forward():
    model = UNet(TINY, 1)
    params = filled(abstract_parameters(model, 8))
    check_merged(jax.jit(model.apply), params, layers_of(model), "cosine_learnable")


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_of_every_family_are_merged(family):
    x = jnp.zeros((4, 8, 8, 1))
    params = filled(jax.eval_shape(Kinds().init, jax.random.key(0), x)["params"])
    layers = {name: leaves["kernel"].shape[2:] for name, leaves in params.items()}
    x, mixed = check_merged(
        lambda variables, x, t: Kinds().apply(variables, x), params, layers, family
    )
    assert np.abs(mixed - Kinds().apply({"params": params}, x)).max() > 1e-2


def test_a_class_gets_no_gradient_from_images_of_another():
    model = UNet(FLAT, 1)
    params = filled(abstract_parameters(model, 8))
    layers = layers_of(model, ("input", "middle_0/conv2", "decoder_0_0/skip", "output"))
    rows = functional.init_rows(
        jax.random.key(1), layers, "cosine_learnable", np.arange(2), 10, 0.3
    )
    x = jax.random.normal(jax.random.key(3), (4, 8, 8, 1))

    def loss_of_class_0(rows):
        modulation = functional.modulation_collection(rows, "cosine_learnable")
        out = model.apply({"params": params, "modulation": modulation}, x, jnp.full(4, 0.5))
        return jnp.sum(out[0::2] ** 2)

    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss_of_class_0))(rows)):
        assert np.abs(gradient[0]).max() > 0
        assert not np.asarray(gradient[1]).any()


@pytest.mark.parametrize("width", [8, 16, 24, 32])
def test_time_and_class_reach_the_output_of_narrow_networks(width):
    shape = settings.UNet(width=width, multipliers=(1,), blocks=1, attention=(), head_channels=8)
    model = UNet(shape, 1, classes=2)
    params = filled(abstract_parameters(model, 8))
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    t, labels = jnp.asarray([0.2, 0.8, 0.2]), jnp.asarray([0, 0, 1])
    x = jnp.broadcast_to(x[:1], x.shape)
    early, late, other = jax.jit(model.apply)({"params": params}, x, t, labels)
    assert jnp.abs(early - late).mean() > 1e-3 and jnp.abs(early - other).mean() > 1e-3


def weight(name, shape):
    """The weight of that name in the reference file."""
    values = np.random.RandomState(zlib.crc32(name.encode())).normal(0, 0.05, shape)
    return jnp.asarray(values + 1 if name.endswith("scale") else values, jnp.float32)


def test_velocity_equals_that_of_the_public_network_with_the_same_weights():
    """`unet_reference.npz`: input and output of TorchCFM 1.0.7's U-Net (PyTorch 2.13, CPU).

    Its weights are those of `weight`, by our names, in its layout (kernels transposed; queries,
    keys and values interleaved by head).
    """
    reference = np.load(Path(__file__).parent / "unet_reference.npz")
    shape = settings.UNet(multipliers=(1, 2), blocks=1, attention=(8,))
    model = UNet(shape, 3)
    flat = flax.traverse_util.flatten_dict(abstract_parameters(model, 16), sep="/")
    params = {name: weight(name, leaf.shape) for name, leaf in flat.items()}
    variables = {"params": flax.traverse_util.unflatten_dict(params, sep="/")}
    got = jax.jit(model.apply)(variables, reference["x"], reference["t"])
    assert reference["velocity"].std() > 0.1
    np.testing.assert_allclose(got, reference["velocity"], rtol=2e-4, atol=2e-4)


def compiled_convolutions(function, *arguments):
    """Count of convolutions and the text of a compiled program."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return len(re.findall(r" convolution\(", text)), text


def test_a_frozen_trunk_is_differentiated_only_where_factors_need_it():
    model = UNet(FLAT, 1)
    adapted = ("decoder_0_1/conv1", "output")  # between them one frozen layer: decoder_0_1/conv2
    layers = layers_of(model, adapted)
    rows = functional.init_rows(jax.random.key(0), layers, "cosine_learnable", np.arange(1), 3, 0.3)
    params = abstract_parameters(model, 8)
    images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)

    def loss(rows, params, images):
        modulation = functional.modulation_collection(rows, "cosine_learnable")
        variables = {"params": params, "modulation": modulation}
        return jnp.mean(model.apply(variables, images, jnp.ones(len(images))) ** 2)

    forward, _ = compiled_convolutions(loss, rows, params, images)
    backward, text = compiled_convolutions(jax.grad(loss), rows, params, images)
    # Two gradients of kernels, and two that carry the signal from the output to the first factor.
    assert backward == forward + 4
    differentiated = "".join(re.findall(r"transpose\(jvp\(UNet\)\)[^\"]*", text))
    assert "decoder_0_1/conv2" in differentiated and "decoder_0_1/norm2" in differentiated
    for frozen in ("encoder", "middle", "decoder_0_0", "time", "norm1", "skip"):
        assert frozen not in differentiated
    everything, _ = compiled_convolutions(jax.grad(loss, argnums=1), rows, params, images)
    assert everything > backward + len(convolutions(model, 8)) - len(adapted)
