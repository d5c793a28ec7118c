"""The plain convolution, whose weight gradient a CPU computes in pieces.

XLA's CPU convolution sums a weight gradient over all images and pixels at once and falls out of the
caches: at 32x32x128 it costs 3-4 times the forward pass of equal arithmetic. Summed over pieces of
about two thousand positions it costs 1.1-1.4 times the forward pass. Other devices keep the
gradient that `lax` derives.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_POSITIONS = 2048  # images x pixels in one piece: measured, 1024 to 2048 are best from 8 to 32 px
_FEWEST_POSITIONS = 256  # pieces below this lose more than they gain
_FEWEST_CHANNELS = 32  # narrower layers fit the caches as they are


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def plain_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution [B, H, W, Cin] x [k, k, Cin, Cout] with k // 2 zeros on every side.

    Reverse mode only. The weight gradient is summed in pieces when the program is compiled for CPU.
    """
    return lax_conv(x, kernel, stride)


def lax_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`plain_conv` with the derivatives of `lax` on every platform."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=_NHWC
    )


def _forward(x, kernel, stride):
    return lax_conv(x, kernel, stride), (x, kernel)


def _backward(stride, saved, grad):
    x, kernel = saved
    (grad_x,) = jax.linear_transpose(lambda x: lax_conv(x, kernel, stride), x)(grad)
    form = functools.partial(kernel_gradient, size=kernel.shape[0], stride=stride)
    grad_kernel = lax.platform_dependent(
        x, grad, cpu=functools.partial(form, pieces=True), default=form
    )
    return grad_x, grad_kernel


plain_conv.defvjp(_forward, _backward)


def kernel_gradient(
    x: jax.Array, grad: jax.Array, *, size: int, stride: int, pieces: bool = False
) -> jax.Array:
    """Gradient [k, k, Cin, Cout] of a convolution's kernel.

    Args:
      x: images [B, H, W, Cin].
      grad: gradient [B, H', W', Cout] of the output.
      size: k.
      stride: of the convolution.
      pieces: sum over pieces of the batch, where that is faster on a CPU.
    """
    shape = (size, size, x.shape[-1], grad.shape[-1])
    if not pieces:
        form = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda kernel: lax_conv(x, kernel, stride), form)(grad)[0]
    if size == 1:
        x = x[:, ::stride, ::stride]
        over = ((0, 1, 2), (0, 1, 2))
        return lax.dot_general(x, grad, (over, ((), ()))).reshape(shape)
    count = piece_images(x.shape[0], grad.shape[1] * grad.shape[2], jax.device_count())
    if count == x.shape[0] or min(shape[2:]) < _FEWEST_CHANNELS:
        return _canonical(x, grad, size, stride).astype(x.dtype)
    # Images of one piece lie B / count apart: the leading axis stays the one that devices share.
    x = x.reshape(count, -1, *x.shape[1:])
    grad = grad.reshape(count, -1, *grad.shape[1:])

    def add_piece(index, total):
        parts = (lax.dynamic_index_in_dim(v, index, 1, keepdims=False) for v in (x, grad))
        return total + _canonical(*parts, size, stride)

    total = lax.fori_loop(0, x.shape[1], add_piece, jnp.zeros(shape, jnp.float32))
    return total.astype(x.dtype)


def piece_images(batch: int, pixels: int, devices: int) -> int:
    """Images summed at once: a divisor of `batch`, equally many on every device if they divide it.

    Equal to `batch` when it is small enough, or has no suitable divisor.
    """
    share = devices if batch % devices == 0 else 1
    own = batch // share
    most = max(1, _POSITIONS // pixels)
    # Images lie next to each other in memory there: whole vector registers, if possible.
    divisors = [d for d in range(1, min(most, own) + 1) if own % d == 0]
    found = max(divisors, key=lambda d: (d % 4 == 0, d))
    return batch if found * pixels < _FEWEST_POSITIONS else found * share


def _canonical(x: jax.Array, grad: jax.Array, size: int, stride: int) -> jax.Array:
    """The weight gradient as a convolution in the one layout that XLA's CPU kernel takes in a loop.

    Anywhere else the compiler brings a convolution into that layout, but not inside a loop's body,
    where it would run 20 times slower.
    """
    low = size // 2
    padding = [
        (low, (grad.shape[axis] - 1) * stride + size - x.shape[axis] - low) for axis in (1, 2)
    ]
    out = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
        preferred_element_type=jnp.float32,
    )
    return out.transpose(1, 2, 0, 3)
