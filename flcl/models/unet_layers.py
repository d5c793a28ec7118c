"""The layers of the U-Net: a convolution that a class may modulate, and the layers around it."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from flcl.adapters.modulate import modulated_conv, upsampled_conv
from flcl.ops import broadcast
from flcl.ops.convolution import plain_conv
from flcl.ops.linear import linear, product

_zeros = nn.initializers.zeros_init()


def _fan_in_uniform(key, shape, dtype=jnp.float32):
    """Uniform in +-1/sqrt(fan in), the start that the usual learning rates (F8) expect."""
    bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv(nn.Module):
    """Square convolution with bias; the class may modulate its kernel.

    [B, H, W, Cin] -> [B, H / stride, W / stride, Cout], or twice H and W with `upsample`, which
    first repeats every pixel.
    """

    features: int
    size: int = 3
    stride: int = 1
    upsample: bool = False
    zero: bool = False
    strategy: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _zeros if self.zero else _fan_in_uniform, shape)
        bias = self.param("bias", _zeros, (self.features,))
        modulation = None
        # Only adapted layers have an entry; all others use W0.
        if self.has_variable("modulation", "f"):
            modulation = self.get_variable("modulation", "f")
        if self.upsample:
            x = upsampled_conv(x, kernel, modulation, strategy=self.strategy)
        elif modulation is None:
            x = plain_conv(x, kernel.astype(x.dtype), self.stride)
        else:
            x = modulated_conv(x, kernel, modulation, stride=self.stride, strategy=self.strategy)
        return broadcast.add(x, bias)


class Dense(nn.Module):
    """Linear map [..., Cin] -> [..., Cout] with bias, with the parameters of flax's `Dense`.

    pixels: the input is every pixel of a feature map; then `product` is faster on a CPU.
    """

    features: int
    zero: bool = False
    pixels: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = _zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", start, (x.shape[-1], self.features))
        bias = self.param("bias", _zeros, (self.features,))
        return broadcast.add((product if self.pixels else linear)(x, kernel), bias)


class GroupNorm(nn.Module):
    """Group normalisation in float32, with one product and one sum per number.

    The layer of flax subtracts, multiplies and adds, and takes 1.7-2.5 times as long on a CPU.
    """

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", _zeros, (channels,))
        wide = x.astype(jnp.float32)

        def mean_of(values):
            sums = values.sum(axis=(1, 2)).reshape(batch, self.groups, -1).sum(axis=-1)
            mean = sums / (height * width * (channels // self.groups))
            return jnp.repeat(mean, channels // self.groups, axis=1)

        mean = mean_of(wide)
        # Two passes: the mean of squares minus the square of the mean loses all digits if the mean
        # is large. The deviations have the mean zero, so no gradient goes through their centre.
        deviation = wide - jax.lax.stop_gradient(mean)[:, None, None]
        variance = mean_of(deviation * deviation)
        slope = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
        shift = bias[None] - mean * slope
        return wide * slope[:, None, None] + shift[:, None, None]


class Norm(nn.Module):
    """GroupNorm in float32: 32 groups, or fewer in narrow layers.

    A group has at least four channels. A group of one channel would subtract everything that the
    time and class embeddings add to it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = math.gcd(32, max(1, x.shape[-1] // 4))
        return GroupNorm(groups)(x).astype(x.dtype)


class Dropout(nn.Module):
    """Sets a share of the activations to zero, depending only on the image number and the key.

    So the batch may be divided, reordered or computed in parts. Sixteen random bits decide about
    each activation: this needs half the random words of 32 bits, and the share is exact to
    1 / 65,536.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, images: jax.Array | None) -> jax.Array:
        """x: [B, H, W, C]; images: the numbers [B] of the images, None = no dropout."""
        # The smallest number of 16 bits that is kept: `limit` of 65,536 numbers are dropped.
        limit = min(round(self.rate * 2**16), 2**16 - 1)
        if images is None or limit == 0:
            return x
        key, count = self.make_rng("dropout"), x[0].size

        # A key for each image: the order and the division of the batch do not matter.
        def bits_of(image):
            words = jax.random.bits(jax.random.fold_in(key, image), (-(-count // 2),), jnp.uint32)
            return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:count]

        kept = jax.vmap(bits_of)(images).reshape(x.shape) >= limit
        return jnp.where(kept, x * (2**16 / (2**16 - limit)), 0)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, + time, norm, SiLU, dropout, zero conv, + skip."""

    features: int
    dropout: float
    strategy: str

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, train: jax.Array | None) -> jax.Array:
        hidden = Conv(self.features, strategy=self.strategy, name="conv1")(
            nn.silu(Norm(name="norm1")(x))
        )
        # The time enters between the two convolutions. The class does not: it enters through the
        # kernels.
        shift = Dense(self.features, name="time")(nn.silu(embedding).astype(x.dtype))
        hidden = nn.silu(Norm(name="norm2")(broadcast.add(hidden, shift[:, None, None])))
        hidden = Dropout(self.dropout)(hidden, train)
        # Zero at the start, so the block begins as the identity (or its skip).
        hidden = Conv(self.features, zero=True, strategy=self.strategy, name="conv2")(hidden)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, strategy=self.strategy, name="skip")(x)
        return x + hidden


class Attention(nn.Module):
    """Self-attention over all pixels of a feature map, softmax in float32."""

    head_channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, _, channels = x.shape
        # A level that is narrower than a head has one head.
        heads = max(1, channels // self.head_channels)
        tokens = rearrange(Norm(name="norm")(x), "b h w c -> b (h w) c")
        qkv = Dense(3 * channels, pixels=True, name="qkv")(tokens)
        thirds = jnp.split(qkv, 3, axis=-1)
        q, k, v = (rearrange(third, "b t (h d) -> b h t d", h=heads) for third in thirds)
        q = q / math.sqrt(q.shape[-1])  # q has fewer numbers than the scores
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        # The division by the sum comes after the product, which has fewer numbers than the weights.
        sums = weights.sum(axis=-1, keepdims=True)
        out = broadcast.divide(jnp.einsum("bhqk,bhkd->bhqd", weights.astype(x.dtype), v), sums)
        out = rearrange(out, "b h t d -> b t (h d)")
        out = Dense(channels, zero=True, pixels=True, name="out")(out)
        return x + rearrange(out, "b (h w) c -> b h w c", h=height)
