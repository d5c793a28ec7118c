"""The mean of a loss over devices and parts of a batch; its gradient is summed part by part.

The gradient is computed together with the value, so there is no second derivative.

If a part contains images of one class only, every convolution is a plain one: no layer has to split
and join the classes. Only the activations of one part exist at a time, and on a CPU they stay in
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

    First derivative in reverse mode only. Every device sums the gradient of its images; one
    exchange adds these sums.

    Args:
      loss: a mean over its data -> scalar in float32.
      shared: arrays that all images use, with a gradient; () = none.
      rows: arrays [G, ...] of the classes of a batch, with a gradient.
      fixed: arrays without a gradient.
      data: arrays [n * G, ...], n-major, divided over the devices of the current mesh.
      groups: G.
      pixels: pixels of an image; classes are then computed one at a time, large ones in parts.
        None = a device computes all of its images at once.
    """

    def on_device(parameters, fixed, data):
        shared, rows = parameters
        if pixels is None:
            return loss(shared, rows, fixed, data)
        # The images of this device, because this runs inside `shard_map`.
        count = parts_of(jax.tree.leaves(data)[0].shape[0] // groups, pixels)
        return mean_over_parts(
            lambda shared, rows, data: loss(shared, rows, fixed, data),
            shared,
            # The gradient of this repetition is the sum over the parts of a class.
            jax.tree.map(lambda v: repeat_rows(v, count), rows),
            jax.tree.map(lambda v: divide(v, groups, count), data),
        )

    return mean_over_devices(on_device, (shared, rows), fixed, data)


def parts_of(images: int, pixels: int) -> int:
    """The smallest number of equal parts of `images` with at most about 16,000 pixels each."""
    wanted = min(images, -(-images * pixels // _POSITIONS))
    # Equal parts, because all rounds of a scan have one shape.
    return next(parts for parts in range(wanted, images + 1) if images % parts == 0)


def divide(values: jax.Array, groups: int, parts: int) -> jax.Array:
    """Images [n * G, ...], n-major, as [parts * G, n / parts, ...]: each row is a part of a class.

    The n images of a class are divided over the devices, and so are the images of each part.
    """
    # Image i of class g has the index i * G + g, so a row of the result has one class only.
    return rearrange(values, "(n i) ... -> i n ...", i=parts * groups)


def repeat_rows(values: jax.Array, parts: int) -> jax.Array:
    """Arrays [G, ...] of the classes, repeated to match `divide`: [parts * G, 1, ...]."""
    # The axis of length 1 is G: a part has a single class.
    return repeat(values, "g ... -> (p g) 1 ...", p=parts)


def mean_over_parts(loss: Callable, shared, own, data) -> jax.Array:
    """Mean over i of `loss(shared, own[i], data[i])`, a scalar; first derivative, reverse mode.

    Args:
      loss: (shared, own of one part, data of one part) -> scalar in float32.
      shared: arrays that all parts use, with a gradient; () = none.
      own: arrays [parts, ...] with a gradient; () = none.
      data: arrays [parts, ...] without a gradient.
    """
    count = jax.tree.leaves(data)[0].shape[0]

    def slope(parameters):
        shared, own = parameters

        def add(total, of_part):
            # The gradient of a part is complete here, so its activations are free before the next
            # part.
            value, (to_shared, to_own) = jax.value_and_grad(loss, argnums=(0, 1))(shared, *of_part)
            return jax.tree.map(jnp.add, total, (value, to_shared)), to_own

        start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, shared))
        (value, to_shared), to_own = lax.scan(add, start, (own, data))
        return jax.tree.map(lambda v: v / count, (value, (to_shared, to_own)))

    return _with_slope(slope, (shared, own))


def mean_over_devices(loss: Callable, parameters, fixed, data) -> jax.Array:
    """Mean over the devices of `loss(parameters, fixed, local data)`, a scalar.

    First derivative in reverse mode only. Each device sums its gradient, and one exchange adds
    these sums. The compiler alone would exchange the gradients of the kernels of every class, which
    are much larger than those of a few factors.

    Args:
      loss: a mean over its data -> scalar in float32.
      parameters: replicated arrays with a gradient.
      fixed: replicated arrays without a gradient.
      data: arrays whose first axis is divided over the devices of the current mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # One device has nothing to exchange.
    if math.prod(mesh.shape.values()) == 1:
        return loss(parameters, fixed, data)

    def local(parameters, fixed, data):
        value_and_slope = jax.value_and_grad(loss)(parameters, fixed, data)
        # Devices exchange here, once, after each of them has summed the gradients of its parts.
        return jax.tree.map(lambda v: lax.pmean(v, mesh.axis_names), value_and_slope)

    same, shared = PartitionSpec(), PartitionSpec(mesh.axis_names)
    divided = jax.shard_map(local, in_specs=(same, same, shared), out_specs=same, check_vma=False)
    return _with_slope(lambda parameters: divided(parameters, fixed, data), parameters)


def _with_slope(slope: Callable, parameters) -> jax.Array:
    """The value of `slope(parameters) -> (value, gradient)`, with this gradient."""

    @jax.custom_vjp
    def value(parameters):
        return slope(parameters)[0]

    def backward(gradient, outer):
        # The loss is a scalar, so its chain rule is one product.
        return (jax.tree.map(lambda v: v * outer, gradient),)

    value.defvjp(slope, backward)
    return value(parameters)
