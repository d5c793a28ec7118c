"""No network sums a gradient in bfloat16, whatever the parameter: every long sum is in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.adapters.modulate import Modulation, modulated_conv
from flcl.models import resnet, unet, unet_layers, vit

LONGEST = 2
"""Terms that may be added in bfloat16: a repeated pixel has two copies along an axis."""


def inner(equation):
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield each


def short_sums(jaxpr) -> list[tuple[tuple[int, ...], int]]:
    """(shape, terms) of every sum in bfloat16 with more than `LONGEST` terms."""
    found = []
    for equation in jaxpr.eqns:
        form = equation.invars[0].aval if equation.invars else None
        if equation.primitive.name == "reduce_sum" and form.dtype == jnp.bfloat16:
            terms = form.size // max(1, equation.outvars[0].aval.size)
            found += [(form.shape, terms)] if terms > LONGEST else []
        for each in inner(equation):
            found += short_sums(each)
    return found


def noise(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def unet_loss():
    shape = settings.UNet(
        width=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=4, dtype="bfloat16"
    )
    network = unet.UNet(shape, 3, classes=3)
    inputs = noise(6, 8, 8, 3), jnp.linspace(0, 1, 6), jnp.arange(6) % 3
    parameters = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    return lambda p: jnp.sum(network.apply({"params": p}, *inputs) ** 2), parameters


BESIDE = {"down": (64, 4), "down_bias": (4,), "up": (4, 64), "up_bias": (64,)}


def vit_loss(remat="none", beside=False):
    model = settings.AdaptedViT(variant="Pico/4", layer_scale=True, dtype="bfloat16", remat=remat)
    network, images = vit.VisionTransformer(model, 16), noise(6, 16, 16, 3)
    adapter = {"a": noise(64, 4), "core": noise(4, 4), "b": noise(64, 4)}
    parameters = {
        "params": jax.eval_shape(
            lambda key: vit.init_parameters(model, 16, key), jax.random.key(0)
        ),
        "adapter": {"block_00": {"q": adapter}},
        "prompt": noise(3, 64),
    }
    if beside:
        entry = {name: noise(*shape) for name, shape in BESIDE.items()}
        parameters["adapter"]["block_01"] = {vit.BESIDE: entry}
        parameters["prompt"] = {"tokens": noise(3, 64), "gates": noise(2)}

    def loss(p):
        variables = {name: p[name] for name in ("params", "adapter")}
        return jnp.sum(network.apply(variables, images, p["prompt"]) ** 2)

    return loss, parameters


def judge_loss():
    network, images = resnet.ResNet18(4, 8, dtype=jnp.bfloat16), noise(6, 8, 8, 3)
    start = functools.partial(network.init, train=False)
    variables = jax.eval_shape(start, jax.random.key(0), images)

    def loss(variables):
        return jnp.sum(network.apply(variables, images, True, mutable=["batch_stats"])[0] ** 2)

    return loss, variables


def separable_loss():
    x, kernel = noise(6, 8, 8, 4, dtype=jnp.bfloat16), noise(3, 3, 4, 5)

    def loss(p):
        form = Modulation(scale_in=p["in"], scale_out=p["out"])
        return jnp.sum(modulated_conv(x, p["kernel"], form).astype(jnp.float32) ** 2)

    return loss, {"kernel": kernel, "in": noise(2, 4), "out": noise(2, 5)}


NETWORKS = {
    "unet": unet_loss,
    "vit": vit_loss,
    "vit, adapter beside the MLP, gated prompt": lambda: vit_loss(beside=True),
    "vit, cheap": lambda: vit_loss("cheap"),
    "vit, blocks": lambda: vit_loss("blocks"),
    "judge": judge_loss,
    "separable factors": separable_loss,
}


@pytest.mark.parametrize("network", NETWORKS)
def test_no_sum_is_in_bfloat16(network):
    loss, parameters = NETWORKS[network]()
    assert short_sums(jax.make_jaxpr(jax.grad(loss))(parameters).jaxpr) == []


def test_a_sum_in_bfloat16_would_be_noticed():
    x = noise(4, 5, dtype=jnp.bfloat16)
    loss = lambda b: jnp.sum((x + b.astype(x.dtype)[None]).astype(jnp.float32))  # noqa: E731
    assert short_sums(jax.make_jaxpr(jax.grad(loss))(jnp.ones(5)).jaxpr) == [((4, 5), 4)]


LAYERS = {
    "convolution": unet_layers.Conv(8),
    "upsampling convolution": unet_layers.Conv(8, upsample=True),
    "1x1 convolution": unet_layers.Conv(8, size=1),
    "group norm": unet_layers.Norm(),
    "linear map": unet_layers.Dense(8),
    "linear map of pixels": unet_layers.Dense(8, pixels=True),
    "adapter site": vit.Site(8),
    "layer scale": vit.LayerScale(),
    "layer norm": vit._norm(1e-6, None),
}


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_of_a_layer_get_the_gradient_that_float32_activations_give(name):
    """The same numbers in float32: only the sums differ, and the last rounding."""
    layer, x = LAYERS[name], noise(16, 16, 16, 8, dtype=jnp.bfloat16)
    parameters = layer.init(jax.random.key(0), x.astype(jnp.float32))["params"]
    rounded = jax.tree.map(lambda v: v.astype(jnp.bfloat16).astype(jnp.float32), parameters)

    def gradient(x):
        out, backward = jax.vjp(lambda p: layer.apply({"params": p}, x), rounded)
        weight = 0.3 + noise(*out.shape, seed=2, dtype=jnp.bfloat16)
        return jax.jit(backward)(weight.astype(out.dtype))[0]

    got, want = gradient(x), gradient(x.astype(jnp.float32))
    for short, exact in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert short.dtype == jnp.float32
        assert np.linalg.norm(short - exact) < 5e-3 * np.linalg.norm(exact)


def test_a_gate_gets_the_gradient_that_float32_activations_give():
    q, k, v = (noise(16, 19, 4, 8, seed=seed, dtype=jnp.bfloat16) for seed in range(3))
    weight = 0.3 + noise(16, 19, 4, 8, seed=3, dtype=jnp.bfloat16)

    def gradient(gate, dtype):
        attention = lambda g: vit.gated_attention(  # noqa: E731
            *(x.astype(dtype) for x in (q, k, v)), g, prompt=3
        )
        out, backward = jax.vjp(attention, gate)
        return float(backward(weight.astype(out.dtype))[0])

    short, exact = (gradient(jnp.float32(0.4), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert abs(short - exact) < 5e-3 * abs(exact)
