"""The flow-matching U-Net of FunLoRA as a velocity field v(x, t).

Residual blocks, single-level attention and learned resampling in the arrangement whose convolutions
and parameters reproduce the paper's counts exactly: 65 convolutions and 35,746,307 parameters for
CIFAR, 67 and 89,535,619 for 64-pixel ImageNet. The class enters only through a `modulation`
variable collection that holds an `adapters.modulate.Modulation` per convolution; a convolution
without one runs its shared kernel.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from flcl import settings
from flcl.adapters.convolution import plain_conv
from flcl.adapters.modulate import modulated_conv

_zeros = nn.initializers.zeros_init()


def _fan_in_uniform(key, shape, dtype=jnp.float32):
    """Uniform in +-1/sqrt(fan in): what the usual learning rates (F8) start from."""
    bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv(nn.Module):
    """Square convolution with bias whose kernel the class may modulate.

    [B, H, W, Cin] -> [B, H / stride, W / stride, Cout].
    """

    features: int
    size: int = 3
    stride: int = 1
    zero: bool = False
    strategy: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _zeros if self.zero else _fan_in_uniform, shape)
        bias = self.param("bias", _zeros, (self.features,))
        if self.has_variable("modulation", "f"):
            modulation = self.get_variable("modulation", "f")
            x = modulated_conv(x, kernel, modulation, stride=self.stride, strategy=self.strategy)
        else:
            x = plain_conv(x, kernel.astype(x.dtype), self.stride)
        return x + bias.astype(x.dtype)[None, None, None]


class Norm(nn.Module):
    """GroupNorm in float32: 32 groups, fewer in narrow layers.

    A group keeps at least four channels. One of a single channel would subtract all that the time
    and class embeddings add to it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = math.gcd(32, max(1, x.shape[-1] // 4))
        return nn.GroupNorm(groups, epsilon=1e-5, dtype=jnp.float32)(x).astype(x.dtype)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, + time, norm, SiLU, dropout, zero conv, + skip."""

    features: int
    dropout: float
    strategy: str

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, train: bool) -> jax.Array:
        hidden = Conv(self.features, strategy=self.strategy, name="conv1")(
            nn.silu(Norm(name="norm1")(x))
        )
        shift = nn.Dense(self.features, dtype=x.dtype, name="time")(nn.silu(embedding))
        hidden = nn.silu(Norm(name="norm2")(hidden + shift[:, None, None].astype(x.dtype)))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
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
        heads = max(1, channels // self.head_channels)
        tokens = rearrange(Norm(name="norm")(x), "b h w c -> b (h w) c")
        qkv = nn.Dense(3 * channels, dtype=x.dtype, name="qkv")(tokens)
        q, k, v = rearrange(qkv, "b t (s h d) -> s b t h d", s=3, h=heads)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores / math.sqrt(q.shape[-1])).astype(x.dtype)
        out = rearrange(jnp.einsum("bhqk,bkhd->bqhd", weights, v), "b t h d -> b t (h d)")
        out = nn.Dense(channels, kernel_init=_zeros, dtype=x.dtype, name="out")(out)
        return x + rearrange(out, "b (h w) c -> b h w c", h=height)


def time_embedding(t: jax.Array, features: int) -> jax.Array:
    """Cosines then sines of t [B] at geometric frequencies down to 1/10,000: [B, features]."""
    half = features // 2
    frequencies = jnp.exp(-math.log(10_000.0) * jnp.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class UNet(nn.Module):
    """Velocity field of a probability path.

    Attributes:
      shape: `settings.UNet`: widths, levels, attention, dtype of the activations.
      channels: of the images.
      dropout: inside residual blocks, active when `train`.
      strategy: of the class-modulated convolutions.
      classes: rows of a class embedding added to the time embedding, for the baselines; 0 = none.
    """

    shape: settings.UNet
    channels: int
    dropout: float = 0.0
    strategy: str = "auto"
    classes: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, t: jax.Array, labels: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Velocity [B, H, W, C] in float32 at images x [B, H, W, C] and times t [B] in [0, 1].

        `labels` [B] are read only by a model with a class embedding. Needs a `dropout` key when
        `train`. Raises `ValueError` when the image size does not halve evenly.
        """
        shape, dtype = self.shape, jnp.dtype(self.shape.dtype)
        _check_size(x.shape, len(shape.multipliers))
        embedding = self._embed(t, labels).astype(dtype)
        hidden = Conv(shape.width, strategy=self.strategy, name="input")(x.astype(dtype))
        hidden, skips = self._encode(hidden, embedding, train)
        hidden = self._block("middle_0", hidden, embedding, train)
        hidden = Attention(shape.head_channels, name="middle_attention")(hidden)
        hidden = self._block("middle_1", hidden, embedding, train)
        hidden = self._decode(hidden, skips, embedding, train)
        hidden = nn.silu(Norm(name="output_norm")(hidden))
        out = Conv(self.channels, zero=True, strategy=self.strategy, name="output")(hidden)
        return out.astype(jnp.float32)

    def _embed(self, t: jax.Array, labels: jax.Array | None) -> jax.Array:
        width = self.shape.width
        hidden = nn.Dense(4 * width, name="time_1")(time_embedding(t, width))
        embedding = nn.Dense(4 * width, name="time_2")(nn.silu(hidden))
        if self.classes:
            # As large as the time embedding, or short runs never tell the classes apart.
            table = nn.Embed(
                self.classes, 4 * width, embedding_init=nn.initializers.normal(1.0), name="class"
            )
            embedding = embedding + table(labels)
        return embedding

    def _block(self, name, x, embedding, train, features: int = 0):
        features = features or x.shape[-1]
        return ResidualBlock(features, self.dropout, self.strategy, name=name)(x, embedding, train)

    def _attend(self, name: str, x: jax.Array) -> jax.Array:
        if x.shape[1] not in self.shape.attention:
            return x
        return Attention(self.shape.head_channels, name=name)(x)

    def _encode(self, x, embedding, train):
        shape, skips = self.shape, [x]
        for level, multiplier in enumerate(shape.multipliers):
            for i in range(shape.blocks):
                name = f"encoder_{level}_{i}"
                x = self._block(name, x, embedding, train, shape.width * multiplier)
                x = self._attend(f"{name}_attention", x)
                skips.append(x)
            if level + 1 < len(shape.multipliers):
                name = f"encoder_{level}_down"
                x = Conv(x.shape[-1], stride=2, strategy=self.strategy, name=name)(x)
                skips.append(x)
        return x, skips

    def _decode(self, x, skips, embedding, train):
        shape = self.shape
        for level, multiplier in reversed(list(enumerate(shape.multipliers))):
            for i in range(shape.blocks + 1):
                name = f"decoder_{level}_{i}"
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self._block(name, x, embedding, train, shape.width * multiplier)
                x = self._attend(f"{name}_attention", x)
            if level:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                name = f"decoder_{level}_up"
                x = Conv(x.shape[-1], strategy=self.strategy, name=name)(x)
        return x


def _check_size(shape: tuple[int, ...], levels: int) -> None:
    multiple = 2 ** (levels - 1)
    if shape[1] % multiple or shape[2] % multiple:
        raise ValueError(
            f"data.image_size={shape[1]}: {levels} U-Net levels need a multiple of {multiple}"
        )
