"""The list of the convolutions of a model, in the numbering of the paper."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flcl.models import unet_layers


class Convolution(NamedTuple):
    """One convolution: its index in module order, its name and its kernel [k, k, Cin, Cout]."""

    index: int
    name: str
    shape: tuple[int, int, int, int]


def convolutions(model: nn.Module, size: int) -> tuple[Convolution, ...]:
    """All convolutions of a U-Net for images of `size` pixels; the model is only traced.

    Within a residual block the order is conv 1, conv 2, skip. With this order the window 40-54 has
    the parameter count that the paper prints (its ablation of layers).
    """
    listed: list[Convolution] = []

    def record(next_call, args, kwargs, context):
        out = next_call(*args, **kwargs)
        if isinstance(context.module, unet_layers.Conv) and context.method_name == "__call__":
            kernel = context.module.variables["params"]["kernel"]
            listed.append(Convolution(len(listed), "/".join(context.module.path), kernel.shape))
        return out

    # The calls and not the parameter tree, which is sorted by name: the paper counts layers in
    # the order of the modules. Attention has dense layers, which it does not count.
    with nn.intercept_methods(record):
        abstract_parameters(model, size)
    return tuple(listed)


def abstract_parameters(model: nn.Module, size: int):
    """Shapes and dtypes of the U-Net's parameters; nothing is allocated."""
    return jax.eval_shape(lambda key: init_parameters(model, size, key), jax.random.key(0))


def init_parameters(model: nn.Module, size: int, key: jax.Array):
    """Parameters of a U-Net for images of `size` pixels."""
    image = jnp.zeros((1, size, size, model.channels))
    labels = jnp.zeros((1,), jnp.int32)
    return model.init(key, image, jnp.zeros((1,)), labels)["params"]
