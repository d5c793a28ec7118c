"""The list of a model's convolutions, in the order in which the paper numbers them."""

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
    """All convolutions of a U-Net for images of `size` pixels, by tracing it once without memory.

    Within a residual block the order is conv 1, conv 2, skip: the order that gives the window 40-54
    of the paper its printed parameter count (its ablation of layers).
    """
    found: list[Convolution] = []

    def record(next_call, args, kwargs, context):
        out = next_call(*args, **kwargs)
        if isinstance(context.module, unet_layers.Conv) and context.method_name == "__call__":
            kernel = context.module.variables["params"]["kernel"]
            found.append(Convolution(len(found), "/".join(context.module.path), kernel.shape))
        return out

    with nn.intercept_methods(record):
        abstract_parameters(model, size)
    return tuple(found)


def abstract_parameters(model: nn.Module, size: int):
    """Shapes and dtypes of the U-Net's parameters; nothing is allocated."""
    return jax.eval_shape(lambda key: init_parameters(model, size, key), jax.random.key(0))


def init_parameters(model: nn.Module, size: int, key: jax.Array):
    """Parameters of a U-Net for images of `size` pixels."""
    image = jnp.zeros((1, size, size, model.channels))
    labels = jnp.zeros((1,), jnp.int32)
    return model.init(key, image, jnp.zeros((1,)), labels)["params"]
