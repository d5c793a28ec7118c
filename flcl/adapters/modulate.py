"""Convolution with a kernel that depends on the class: one function, several equal strategies.

A batch has n images of each of G classes, flattened with n first: [n * G, H, W, C]. The axis n is
divided over the devices. If a sharded axis is first, the merged axis stays sharded; if G were
first, the partitioner would gather the batch.
"""

import chex
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from flcl.ops import broadcast
from flcl.ops.convolution import lax_conv, plain_conv, repeated, repeated_conv

STRATEGIES = ("auto", "map", "loop", "vmap", "taps")


@flax.struct.dataclass
class Modulation:
    """How G classes change one kernel.

    Attributes:
      matrix: F [G, Cin, Cout], the same for every tap; None if the form is separable.
      add: whether F is added to the kernel; otherwise it is multiplied.
      scale_in: [G, Cin] and
      scale_out: [G, Cout] of the separable form F = outer(scale_in, scale_out).
    """

    matrix: jax.Array | None = None
    add: bool = flax.struct.field(pytree_node=False, default=False)
    scale_in: jax.Array | None = None
    scale_out: jax.Array | None = None

    @property
    def groups(self) -> int:
        """Number of classes G."""
        return (self.scale_in if self.matrix is None else self.matrix).shape[0]


def strategy_for(platform: str) -> str:
    """The fast strategy of `cpu`, `gpu` or `tpu`; only that of `cpu` was timed on a device.

    tpu: the compiled grouped convolution moves the fewest bytes. gpu: not measured.
    """
    # On a CPU, the training of a grouped convolution took ten times as long as a loop, or more.
    return {"cpu": "map", "tpu": "vmap"}.get(platform, "loop")


def resolved_strategy(strategy: str) -> str:
    """`strategy`; for `auto`, the fast strategy of this machine's platform."""
    return strategy_for(jax.default_backend()) if strategy == "auto" else strategy


@jax.named_scope("modulation")
def modulated_kernel(kernel: jax.Array, modulation: Modulation) -> jax.Array:
    """Kernels [G, k, k, Cin, Cout] of the G classes: W0 * F_y, or W0 + F_y."""
    matrix = modulation.matrix
    if matrix is None:
        matrix = modulation.scale_in[:, :, None] * modulation.scale_out[:, None, :]
    # F is the same for every tap of the kernel (FunLoRA).
    matrix = matrix[:, None, None]
    return kernel[None] + matrix if modulation.add else kernel[None] * matrix


def modulated_conv(
    x: jax.Array,
    kernel: jax.Array,
    modulation: Modulation,
    *,
    stride: int = 1,
    strategy: str = "auto",
) -> jax.Array:
    """Convolves the images of each class with the kernel of the class.

    Args:
      x: [n * G, H, W, Cin], n-major: image i of group g has the index i * G + g.
      kernel: shared kernel W0 [k, k, Cin, Cout].
      modulation: F of the G classes; computed in float32, then cast to `x.dtype` with the kernel.
      stride: 1 or 2.
      strategy: `loop` (one convolution per class), `vmap` (one grouped convolution), `taps` (a
        matrix product per tap), `map` (here the same as `loop`; the loss computes one class at a
        time, see `accumulate`), or `auto`, the fast one of the platform. The separable form uses
        none of them. All give the same values and gradients.

    Returns:
      [n * G, H', W', Cout].

    Raises:
      ValueError: for an unknown strategy or a batch that G does not divide.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: accepted are {', '.join(STRATEGIES)}")
    chex.assert_rank([x, kernel], 4)
    chex.assert_axis_dimension(x, 3, kernel.shape[2])
    groups = modulation.groups
    if x.shape[0] % groups:
        raise ValueError(f"batch of {x.shape[0]} images is not divisible by {groups} class groups")
    if modulation.matrix is None:
        return _separable(x, kernel, modulation, stride)
    kernels = modulated_kernel(kernel, modulation).astype(x.dtype)
    # One class, as in sampling and in a part of the loss: a plain convolution.
    if groups == 1:
        return plain_conv(x, kernels[0], stride)
    chex.assert_shape(modulation.matrix, (groups, *kernel.shape[2:]))
    grouped = rearrange(x, "(n g) h w c -> n g h w c", g=groups)
    out = _BY_NAME[resolved_strategy(strategy)](grouped, kernels, stride)
    return rearrange(out, "n g h w c -> (n g) h w c")


def upsampled_conv(
    x: jax.Array, kernel: jax.Array, modulation: Modulation | None, *, strategy: str = "auto"
) -> jax.Array:
    """`modulated_conv` after every pixel is repeated, which doubles height and width.

    modulation: None = the shared kernel for all images.
    """
    # A CPU computes a repeated image faster from the small one: see `repeated_conv`.
    if modulation is None:
        return repeated_conv(x, kernel.astype(x.dtype))
    if modulation.groups == 1:
        return repeated_conv(x, modulated_kernel(kernel, modulation)[0].astype(x.dtype))
    return modulated_conv(repeated(x), kernel, modulation, strategy=strategy)


def _separable(x: jax.Array, kernel: jax.Array, modulation: Modulation, stride: int) -> jax.Array:
    """Scale input channels, convolve with W0, scale output channels: W0 * outer(b, a)."""

    def per_image(scale):
        # n-major: the scales of the G classes repeat for every n.
        return jnp.tile(scale, (x.shape[0] // scale.shape[0], 1))[:, None, None]

    scaled = broadcast.multiply(x, per_image(modulation.scale_in))
    out = plain_conv(scaled, kernel.astype(x.dtype), stride)
    return broadcast.multiply(out, per_image(modulation.scale_out))


def _loop(x: jax.Array, kernels: jax.Array, stride: int) -> jax.Array:
    # Split, because its gradient is one concatenation; the gradient of an index is a padded sum
    # for each class.
    count = kernels.shape[0]
    images = [part[:, 0] for part in lax.split(x, [1] * count, axis=1)]
    split = [part[0] for part in lax.split(kernels, [1] * count)]
    # Stacked behind n, which stays the leading and divided axis: so the batch is not gathered.
    return jnp.stack([plain_conv(i, k, stride) for i, k in zip(images, split, strict=True)], axis=1)


def _vmap(x: jax.Array, kernels: jax.Array, stride: int) -> jax.Array:
    return jax.vmap(lambda xs, k: lax_conv(xs, k, stride), in_axes=(1, 0), out_axes=1)(x, kernels)


def _taps(x: jax.Array, kernels: jax.Array, stride: int) -> jax.Array:
    """One batched matrix product per kernel tap, without a convolution."""
    size = kernels.shape[1]
    pad = size // 2
    height, width = (-(-length // stride) for length in x.shape[2:4])
    x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = 0.0  # accumulated in float32, as in a convolution
    for row in range(size):
        for column in range(size):
            window = x[:, :, row : row + stride * height : stride]
            window = window[:, :, :, column : column + stride * width : stride]
            tap = kernels[:, row, column]
            out = out + jnp.einsum(
                "nghwi,gio->nghwo", window, tap, preferred_element_type=jnp.float32
            )
    return out.astype(x.dtype)


_BY_NAME = {"map": _loop, "loop": _loop, "vmap": _vmap, "taps": _taps}
