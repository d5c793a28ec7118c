"""The flow-matching U-Net of FunLoRA as a velocity field v(x, t).

It has residual blocks, attention at one level and learned resampling. Its counts are exactly those
of the paper: 65 convolutions and 35,746,307 parameters for CIFAR, 67 and 89,535,619 for 64-pixel
ImageNet. The class enters only through a variable collection `modulation` with an
`adapters.modulate.Modulation` per convolution; a convolution without one uses its shared kernel.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flcl import settings
from flcl.models.unet_layers import Attention, Conv, Norm, ResidualBlock


def time_embedding(t: jax.Array, features: int) -> jax.Array:
    """Cosines, then sines, of t [B] at geometric frequencies down to 1/10,000: [B, features]."""
    # t in [0, 1] is not scaled, as in public code for this network (F6).
    half = features // 2
    frequencies = jnp.exp(-math.log(10_000.0) * jnp.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class UNet(nn.Module):
    """Velocity field of a probability path.

    Attributes:
      shape: `settings.UNet`: widths, levels, attention, dtype of the activations.
      channels: channels of the images.
      dropout: share of the activations that residual blocks set to zero in training.
      strategy: strategy of the class-modulated convolutions.
      classes: rows of a class embedding that the baselines add to the time embedding; 0 = none.
    """

    shape: settings.UNet
    channels: int
    dropout: float = 0.0
    strategy: str = "auto"
    classes: int = 0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        labels: jax.Array | None = None,
        *,
        train: jax.Array | None = None,
        pooled: bool = False,
    ) -> jax.Array:
        """Velocity [B, H, W, C] in float32 at images x [B, H, W, C] and times t [B] in [0, 1].

        Args:
          x: images.
          t: times.
          labels: [B], read only by a model with a class embedding; None = no class is added.
          train: numbers [B] of the images in the batch; together with the `dropout` key they decide
            which activations dropout sets to zero; None = no dropout.
          pooled: instead of the velocity, the means over the pixels of all maps of the encoder and
            of the middle, float32 [B, features]: what a classifier on this network reads.
        """
        shape, dtype = self.shape, jnp.dtype(self.shape.dtype)
        # In float32, also if the activations are not: its gradient is a sum over all blocks.
        embedding = self._embed(t, labels)
        # The order of the calls is the numbering of the paper: encoder 0-20, middle 21-24,
        # decoder 25-63, output 64 (CIFAR).
        hidden = Conv(shape.width, strategy=self.strategy, name="input")(x.astype(dtype))
        hidden, skips = self._encode(hidden, embedding, train)
        hidden = self._block("middle_0", hidden, embedding, train)
        hidden = Attention(shape.head_channels, name="middle_attention")(hidden)
        hidden = self._block("middle_1", hidden, embedding, train)
        if pooled:
            maps = [each.astype(jnp.float32) for each in (*skips, hidden)]
            return jnp.concatenate([each.mean(axis=(1, 2)) for each in maps], axis=-1)
        hidden = self._decode(hidden, skips, embedding, train)
        hidden = nn.silu(Norm(name="output_norm")(hidden))
        # Zero at the start, so the first velocity is 0.
        out = Conv(self.channels, zero=True, strategy=self.strategy, name="output")(hidden)
        return out.astype(jnp.float32)

    def _embed(self, t: jax.Array, labels: jax.Array | None) -> jax.Array:
        width = self.shape.width
        hidden = nn.Dense(4 * width, name="time_1")(time_embedding(t, width))
        embedding = nn.Dense(4 * width, name="time_2")(nn.silu(hidden))
        if self.classes and labels is not None:
            # As large as the time embedding; otherwise short runs do not learn to use the class.
            table = nn.Embed(self.classes, 4 * width, embedding_init=_by_class, name="class")
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
            # One block more than in the encoder: it reads the skip of the input or downsampling
            # convolution.
            for i in range(shape.blocks + 1):
                name = f"decoder_{level}_{i}"
                # Skips are read in reverse order: the last one stored has the size of this level.
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self._block(name, x, embedding, train, shape.width * multiplier)
                x = self._attend(f"{name}_attention", x)
            if level:
                name = f"decoder_{level}_up"
                x = Conv(x.shape[-1], upsample=True, strategy=self.strategy, name=name)(x)
        return x


def _by_class(key, shape, dtype=jnp.float32):
    """Normal rows [classes, d] that depend only on (key, class), and not on how many there are."""

    def row(label):
        return jax.random.normal(jax.random.fold_in(key, label), shape[1:], dtype)

    return jax.vmap(row)(jnp.arange(shape[0]))
