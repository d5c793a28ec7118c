"""The class-modulated convolution as a loop over classes that is compiled once.

Only one class's kernel exists at a time and stays in the caches; the program does not grow with the
number of classes. Both matter on a CPU, where the unrolled loop writes, stacks and sums G kernels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from flcl.adapters.convolution import kernel_gradient, lax_conv


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def mapped_conv(
    x: jax.Array, kernel: jax.Array, matrix: jax.Array, stride: int, add: bool
) -> jax.Array:
    """Convolves each class's images with W0 * F, or W0 + F; reverse mode only.

    Args:
      x: [n, G, H, W, Cin].
      kernel: W0 [k, k, Cin, Cout] in float32.
      matrix: F [G, Cin, Cout] in float32.
      stride: 1 or 2.
      add: F is added to the kernel.

    Returns:
      [n, G, H', W', Cout].
    """

    def convolve(index):
        return lax_conv(_at(x, index, 1), _own(kernel, matrix, index, add, x.dtype), stride)

    return _fill(convolve, matrix.shape[0])


def _fill(function, count: int) -> jax.Array:
    """Results [n, ...] of `function(0 .. count - 1)` as [n, count, ...]."""
    form = jax.eval_shape(function, 0)

    def body(index, out):
        return lax.dynamic_update_index_in_dim(out, function(index), index, 1)

    start = jnp.zeros((form.shape[0], count, *form.shape[1:]), form.dtype)
    return lax.fori_loop(0, count, body, start)


def _at(values, index, axis: int):
    return lax.dynamic_index_in_dim(values, index, axis, keepdims=False)


def _own(kernel, matrix, index, add, dtype):
    factor = _at(matrix, index, 0)[None, None]
    return (kernel + factor if add else kernel * factor).astype(dtype)


def _forward(x, kernel, matrix, stride, add):
    return mapped_conv(x, kernel, matrix, stride, add), (x, kernel, matrix)


def _backward(stride, add, saved, grad):
    # Two loops: what nobody asks for, in a frozen trunk or a first layer, disappears as a whole.
    x, kernel, matrix = saved

    def grad_image(index):
        own = _own(kernel, matrix, index, add, x.dtype)
        return _image_gradient(_at(grad, index, 1), own, x.shape[2:4], stride)

    def add_class(index, total):
        parts = (_at(v, index, 1) for v in (x, grad))
        own = kernel_gradient(*parts, size=kernel.shape[0], stride=stride, pieces=True)
        own = own.astype(kernel.dtype)
        grad_kernel, grad_matrix = total
        per_tap = own if add else own * kernel
        grad_matrix = lax.dynamic_update_index_in_dim(
            grad_matrix, per_tap.sum(axis=(0, 1)), index, 0
        )
        share = own if add else own * _at(matrix, index, 0)[None, None]
        return grad_kernel + share, grad_matrix

    start = (jnp.zeros_like(kernel), jnp.zeros_like(matrix))
    grad_kernel, grad_matrix = lax.fori_loop(0, matrix.shape[0], add_class, start)
    return _fill(grad_image, matrix.shape[0]), grad_kernel, grad_matrix


mapped_conv.defvjp(_forward, _backward)


def _image_gradient(grad, kernel, lengths, stride):
    """Gradient [n, H, W, Cin] of the images, in the layout that runs well inside a loop."""
    size = kernel.shape[0]
    low = size - 1 - size // 2
    padding = [
        (low, length + size - 2 - low - (short - 1) * stride)
        for length, short in zip(lengths, grad.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        grad,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        padding,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
