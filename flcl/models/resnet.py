"""ResNet-18 for small images: the judge of generated images.

He et al. 2016 with the usual stem for 32 pixels: one 3x3 convolution and no max-pool.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from flcl.models.unet_layers import Norm

STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""(channels / width, stride of the first block) of the four stages with two blocks each."""

SMALL_MAP = 2
"""Side in pixels up to which a CPU computes a convolution as one matrix product."""

# As in public code for ResNets (He et al. 2015).
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """conv-norm-relu-conv-norm plus shortcut, then relu: [B, H, W, C] -> [B, H/s, W/s, channels].

    The shortcut is the identity, or a normalised 1x1 convolution where the shape changes.
    """

    channels: int
    stride: int
    dtype: jnp.dtype = jnp.float32
    stateless: bool = False

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool) -> jnp.ndarray:
        conv = functools.partial(_conv, dtype=self.dtype)
        norm = functools.partial(_norm, train, self.dtype, self.stateless)
        y = nn.relu(norm(name="norm1")(conv(self.channels, 3, self.stride, name="conv1")(x)))
        y = norm(name="norm2")(conv(self.channels, 3, 1, name="conv2")(y))
        # The shortcut needs the new size and width; it is learned only there.
        if x.shape != y.shape:
            x = conv(self.channels, 1, self.stride, name="shortcut")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Logits [B, num_classes] float32 of images [B, H, W, C] in [-1, 1].

    stages: the first so many of the four stages are used; ResNet-18 has all of them. The stem has
    stride 1 up to 32 pixels and stride 2 above. With `train` the batch
    statistics are used and the running statistics (collection `batch_stats`, momentum 0.9) are
    updated; under `jit` they are those of the global batch, on any number of devices. The features
    before the head, [B, channels], are `features` in the collection `intermediates`.

    stateless: group norms in the place of batch norms, so there are no statistics, and a head that
    starts from zero, so first values do not depend on `num_classes`.
    """

    num_classes: int
    width: int = 64
    stages: int = len(STAGES)
    dtype: jnp.dtype = jnp.float32
    stateless: bool = False

    @nn.compact
    def __call__(self, images: jnp.ndarray, train: bool) -> jnp.ndarray:
        # A larger stem stride keeps the later maps as small as for 32 pixels.
        stride = 1 if max(images.shape[1:3]) <= 32 else 2
        x = _conv(self.width, 3, stride, self.dtype, name="stem")(images.astype(self.dtype))
        x = nn.relu(_norm(train, self.dtype, self.stateless, name="stem_norm")(x))
        for stage, (multiplier, first_stride) in enumerate(STAGES[: self.stages], start=1):
            for block in (1, 2):
                x = BasicBlock(
                    self.width * multiplier,
                    first_stride if block == 1 else 1,
                    self.dtype,
                    self.stateless,
                    name=f"stage{stage}_block{block}",
                )(x, train)
        # The mean over pixels and the head are float32 also if the activations are not.
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        # Only a caller that asks for the collection `intermediates` gets these features.
        self.sow("intermediates", "features", pooled)
        start = {"kernel_init": nn.initializers.zeros} if self.stateless else {}
        return nn.Dense(self.num_classes, name="head", **start)(pooled)


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **options) -> jax.Array:
    """`lax.conv_general_dilated` in NHWC/HWIO; a CPU computes small maps as a product of patches.

    On maps of 2x2 pixels XLA's CPU convolution takes five times as long as the product (measured
    with 64 channels), and for 8x8 images half of the stages are that small. Programs for other
    platforms use the convolution; there the product was not measured.
    """

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    if max(x.shape[1:3]) > SMALL_MAP:
        return convolution(x, kernel)
    patches = functools.partial(
        _product_of_patches, strides=strides, padding=padding, precision=options.get("precision")
    )
    return jax.lax.platform_dependent(x, kernel, cpu=patches, default=convolution)


def _product_of_patches(x, kernel, *, strides, padding, precision):
    """The convolution of [B, H, W, Cin] and [h, w, Cin, Cout] as one matrix product."""
    height, width, _, channels_out = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows = (x.shape[1] - height) // strides[0] + 1
    columns = (x.shape[2] - width) // strides[1] + 1
    taps = [
        x[:, i :: strides[0], j :: strides[1]][:, :rows, :columns]
        for i in range(height)
        for j in range(width)
    ]
    # In the order of the kernel's axes, so its reshape is the matrix of the product.
    patches = jnp.concatenate(taps, axis=-1)
    matrix = kernel.reshape(-1, channels_out)
    return jnp.einsum("bhwk,ko->bhwo", patches, matrix, precision=precision)


def _conv(channels: int, size: int, stride: int, dtype, name: str) -> nn.Conv:
    # Explicit padding: "SAME" would pad only one side under stride 2.
    return nn.Conv(
        channels,
        (size, size),
        (stride, stride),
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=_conv_init,
        conv_general_dilated=convolve,
        name=name,
    )


def _norm(train: bool, dtype, stateless: bool, name: str) -> nn.Module:
    if stateless:
        return Norm(name=name)
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype, name=name)
