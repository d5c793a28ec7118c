"""The mean of a loss over devices and parts of a batch, its gradient summed up part by part.

The gradient is computed together with the value, so a second derivative is not to be had.

When a part holds images of one class, every convolution is a plain one: nothing is cut into classes
and put together again in each layer. Only one part's activations exist, and on a CPU they stay in
the caches. The gradient is that of the whole batch, up to the order of the sums.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax import lax
from jax.sharding import PartitionSpec

_POSITIONS = 16_384  # images x pixels in one part: measured, from 10 to 20 images of 32 pixels


def mean_loss(
    loss: Callable, *, shared, rows, fixed, data, groups: int, pixels: int | None
) -> jax.Array:
    """Mean of `loss(shared, rows, fixed, data)` over the devices and parts of a batch, a scalar.

    Reverse mode, once. Every device sums the gradient of its own images; one exchange adds them up.

    Args:
      loss: a mean over its data -> scalar in float32.
      shared: arrays that all images use, with a gradient; () = none.
      rows: arrays [G, ...] of the classes of a batch, with a gradient.
      fixed: arrays without a gradient.
      data: arrays [n * G, ...], n-major, that the devices of the mesh in use share.
      groups: G.
      pixels: of an image, to take one class after the other, large ones in parts; None = a device
        takes all of its images at once.
    """

    def on_device(parameters, fixed, data):
        shared, rows = parameters
        if pixels is None:
            return loss(shared, rows, fixed, data)
        parts = parts_of(jax.tree.leaves(data)[0].shape[0] // groups, pixels)
        return mean_over_parts(
            lambda shared, rows, data: loss(shared, rows, fixed, data),
            shared,
            jax.tree.map(lambda v: repeat_rows(v, parts), rows),
            jax.tree.map(lambda v: divide(v, groups, parts), data),
        )

    return mean_over_devices(on_device, (shared, rows), fixed, data)


def parts_of(images: int, pixels: int) -> int:
    """The fewest equal parts of `images` with at most some 16,000 pixels in each."""
    wanted = min(images, -(-images * pixels // _POSITIONS))
    return next(parts for parts in range(wanted, images + 1) if images % parts == 0)


def divide(values: jax.Array, groups: int, parts: int) -> jax.Array:
    """Images [n * G, ...], n-major, as [parts * G, n / parts, ...]: classes and parts of them.

    Devices share the n images of a class; they go on sharing those of a part.
    """
    return rearrange(values, "(n i) ... -> i n ...", i=parts * groups)


def repeat_rows(values: jax.Array, parts: int) -> jax.Array:
    """What belongs to each class, [G, ...], for `divide`: [parts * G, 1, ...]."""
    return repeat(values, "g ... -> (p g) 1 ...", p=parts)


def mean_over_parts(loss: Callable, shared, own, data) -> jax.Array:
    """Mean over i of `loss(shared, own[i], data[i])`, a scalar; reverse mode, once.

    Args:
      loss: (shared, own of one part, data of one part) -> scalar in float32.
      shared: arrays that all parts use, with a gradient; () = none.
      own: arrays [parts, ...] with a gradient; () = none.
      data: arrays [parts, ...] without one.
    """
    count = jax.tree.leaves(data)[0].shape[0]

    def slope(parameters):
        shared, own = parameters

        def add(total, of_part):
            value, (to_shared, to_own) = jax.value_and_grad(loss, argnums=(0, 1))(shared, *of_part)
            return jax.tree.map(jnp.add, total, (value, to_shared)), to_own

        start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, shared))
        (value, to_shared), to_own = lax.scan(add, start, (own, data))
        return jax.tree.map(lambda v: v / count, (value, (to_shared, to_own)))

    return _with_slope(slope, (shared, own))


def mean_over_devices(loss: Callable, parameters, fixed, data) -> jax.Array:
    """Mean over the devices of `loss(parameters, fixed, own data)`, a scalar; reverse mode, once.

    Each device sums its gradient alone, and one exchange adds them up. Left to the compiler, the
    gradient of every class's kernels would be exchanged, before it becomes one of a few factors.

    Args:
      loss: a mean over its data -> scalar in float32.
      parameters: arrays that all devices have, with a gradient.
      fixed: arrays that all devices have, without one.
      data: arrays that the devices of the mesh in use share along the first axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if math.prod(mesh.shape.values()) == 1:
        return loss(parameters, fixed, data)

    def local(parameters, fixed, data):
        found = jax.value_and_grad(loss)(parameters, fixed, data)
        return jax.tree.map(lambda v: lax.pmean(v, mesh.axis_names), found)

    same, shared = PartitionSpec(), PartitionSpec(mesh.axis_names)
    divided = jax.shard_map(local, in_specs=(same, same, shared), out_specs=same, check_vma=False)
    return _with_slope(lambda parameters: divided(parameters, fixed, data), parameters)


def _with_slope(slope: Callable, parameters) -> jax.Array:
    """The value of `slope(parameters) -> (value, gradient)`, with that gradient."""

    @jax.custom_vjp
    def value(parameters):
        return slope(parameters)[0]

    def backward(gradient, outer):
        return (jax.tree.map(lambda v: v * outer, gradient),)

    value.defvjp(slope, backward)
    return value(parameters)
