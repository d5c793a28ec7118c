"""The plain convolution; a CPU computes its weight gradient in pieces.

XLA's CPU convolution sums a weight gradient over all images and pixels at once, which does not fit
in the caches: at 32x32x128 it takes 3-4 times as long as the forward pass, which has the same
arithmetic. A sum over pieces of about two thousand positions takes 1.1-1.4 times as long. Other
devices use the gradient of `lax`.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from flcl.ops.linear import product

_NHWC = ("NHWC", "HWIO", "NHWC")
_POSITIONS = 2048  # images x pixels in one piece: measured, 1024 to 2048 are best from 8 to 32 px
_FEWEST_POSITIONS = 256  # smaller pieces are slower than no pieces
_FEWEST_CHANNELS = 32  # narrower layers fit in the caches without pieces


def plain_conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, before: tuple[int, int] | None = None
) -> jax.Array:
    """Convolution [B, H, W, Cin] x [k, k, Cin, Cout] with k - 1 zeros around rows and columns.

    Reverse mode only. If the program is compiled for CPU, the weight gradient is summed in pieces.

    Args:
      x: images.
      kernel: square.
      stride: of both axes.
      before: zeros above the first row and left of the first column; None = k // 2.
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_axis_dimension(kernel, 1, kernel.shape[0])
    chex.assert_axis_dimension(x, 3, kernel.shape[2])
    # A 1x1 convolution is a matrix product, which has its own gradient: see `product`.
    form = lax_conv if kernel.shape[0] == 1 else _conv
    return form(x, kernel, stride, before)


def lax_conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, before: tuple[int, int] | None = None
) -> jax.Array:
    """`plain_conv` with the derivatives of `lax` on every platform."""
    size = kernel.shape[0]
    if size == 1:  # a matrix product is twice as fast on a CPU
        return product(x[:, ::stride, ::stride], kernel[0, 0])
    padding = [(low, size - 1 - low) for low in _zeros_before(size, before)]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_NHWC)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, stride, before):
    return lax_conv(x, kernel, stride, before)


def _zeros_before(size: int, before: tuple[int, int] | None) -> tuple[int, int]:
    return before or (size // 2, size // 2)


def _forward(x, kernel, stride, before):
    return lax_conv(x, kernel, stride, before), (x, kernel)


def _backward(stride, before, saved, grad):
    of_kernel = functools.partial(
        kernel_gradient, size=saved[1].shape[0], stride=stride, before=before
    )

    def derived(x, kernel, grad):
        (grad_x,) = jax.linear_transpose(lambda x: lax_conv(x, kernel, stride, before), x)(grad)
        return grad_x, of_kernel(x, grad)

    def in_pieces(x, kernel, grad):
        grad_x = _image_gradient(grad, kernel, x.shape[1:3], stride, before)
        return grad_x, of_kernel(x, grad, pieces=True)

    # Chosen when the program is lowered, so a program for a TPU can be made on a CPU.
    return lax.platform_dependent(*saved, grad, cpu=in_pieces, default=derived)


_conv.defvjp(_forward, _backward)


def repeated(x: jax.Array) -> jax.Array:
    """Repeats every pixel of [B, H, W, C] as 2 x 2 pixels."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


@jax.custom_vjp
def repeated_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`plain_conv(repeated(x), kernel)` of a kernel [3, 3, Cin, Cout]; reverse mode only.

    A CPU computes it from the small images, with 16 products instead of 36, in half the time.
    """
    return lax.platform_dependent(x, kernel, cpu=_by_parity, default=_by_repetition)


def _by_repetition(x, kernel):
    return plain_conv(repeated(x), kernel)


def _by_parity(x, kernel):
    """Each output row or column depends on only two of the small image, by sums of kernel taps.

    An even row 2i depends on the repeated rows 2i - 1, 2i, 2i + 1, which are the small rows i - 1,
    i, i; an odd row on i, i, i + 1.
    """

    def halved(values, axis, odd):
        first, second, third = (lax.index_in_dim(values, i, axis, keepdims=False) for i in range(3))
        # Two of the three taps meet the same small row, so they are added first.
        pair = (first + second, third) if odd else (first, second + third)
        return jnp.stack(pair, axis)

    rows = []
    for row in (0, 1):
        taps = halved(kernel, 0, row)
        columns = [plain_conv(x, halved(taps, 1, c), 1, (1 - row, 1 - c)) for c in (0, 1)]
        rows.append(jnp.stack(columns, axis=3))
    return rearrange(jnp.stack(rows), "r b h w c d -> b (h r) (w c) d")


def _repeated_forward(x, kernel):
    return repeated_conv(x, kernel), (x, kernel)


def _repeated_backward(saved, grad):
    def of(form):
        return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

    return lax.platform_dependent(*saved, grad, cpu=of(_by_parity), default=of(_by_repetition))


repeated_conv.defvjp(_repeated_forward, _repeated_backward)


def kernel_gradient(
    x: jax.Array,
    grad: jax.Array,
    *,
    size: int,
    stride: int,
    before: tuple[int, int] | None = None,
    pieces: bool = False,
) -> jax.Array:
    """Gradient [k, k, Cin, Cout] of a convolution's kernel.

    Args:
      x: images [B, H, W, Cin].
      grad: gradient [B, H', W', Cout] of the output.
      size: k, at least 2.
      stride: of the convolution.
      before: as in `plain_conv`.
      pieces: sum over pieces of the batch, if that is faster on a CPU.
    """
    shape = (size, size, x.shape[-1], grad.shape[-1])
    if not pieces:
        form = jax.ShapeDtypeStruct(shape, x.dtype)
        derived = jax.linear_transpose(lambda kernel: lax_conv(x, kernel, stride, before), form)
        return derived(grad)[0]
    count = piece_images(x.shape[0], grad.shape[1] * grad.shape[2], jax.device_count())
    if count == x.shape[0] or min(shape[2:]) < _FEWEST_CHANNELS:
        return _canonical(x, grad, size, stride, before).astype(x.dtype)
    # The images of a piece are B / count apart, so the leading axis is still the sharded one.
    x, grad = (rearrange(v, "(n p) h w c -> n p h w c", n=count) for v in (x, grad))

    def add_piece(index, total):
        piece = (lax.dynamic_index_in_dim(v, index, 1, keepdims=False) for v in (x, grad))
        return total + _canonical(*piece, size, stride, before)

    # In float32, because a sum over many pieces in bfloat16 would lose the small ones.
    total = lax.fori_loop(0, x.shape[1], add_piece, jnp.zeros(shape, jnp.float32))
    return total.astype(x.dtype)


def piece_images(batch: int, pixels: int, devices: int) -> int:
    """Number of images in a piece: a divisor of `batch`, if possible equal on every device.

    It is `batch` itself if that is small enough or has no suitable divisor.
    """
    share = devices if batch % devices == 0 else 1
    local = batch // share
    most = max(1, _POSITIONS // pixels)
    # Images are adjacent in memory there: multiples of 4 fill whole vector registers.
    divisors = [d for d in range(1, min(most, local) + 1) if local % d == 0]
    images = max(divisors, key=lambda d: (d % 4 == 0, d))
    return batch if images * pixels < _FEWEST_POSITIONS else images * share


def _canonical(x: jax.Array, grad: jax.Array, size: int, stride: int, before) -> jax.Array:
    """The weight gradient as a convolution in the layout of XLA's CPU kernel.

    Outside loops the compiler changes a convolution to this layout. Inside the body of a loop it
    does not, and another layout would be 20 times slower.
    """
    padding = [
        (low, (short - 1) * stride + size - length - low)
        for low, short, length in zip(
            _zeros_before(size, before), grad.shape[1:3], x.shape[1:3], strict=True
        )
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


def _image_gradient(grad, kernel, lengths, stride, before):
    """Gradient [B, H, W, Cin] of the images, in the same layout; `lengths` = (H, W)."""
    size = kernel.shape[0]
    lows = [size - 1 - low for low in _zeros_before(size, before)]
    padding = [
        (low, length + size - 2 - low - (short - 1) * stride)
        for low, length, short in zip(lows, lengths, grad.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        grad,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        padding,
        lhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
    )
