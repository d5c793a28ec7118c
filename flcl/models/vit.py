"""Vision transformer (Dosovitskiy et al. 2021) with adapter sites and an optional prompt.

It has pre-norm blocks, exact GELU and MLP ratio 4; with LayerScale it is the transformer of DINOv2,
and with register tokens (Darcet et al. 2024) that of DINOv2 with registers.
Queries, keys and values are three separate maps, so each of them can have an adapter.
"""

import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from flcl import settings
from flcl.ops import broadcast
from flcl.ops.linear import linear

MLP_RATIO = 4
BESIDE = "beside"
"""Name of the adapter beside the MLP of a block."""

_normal = nn.initializers.truncated_normal(0.02)
_kernel = nn.initializers.xavier_uniform()


class Site(nn.Module):
    """Linear map [..., in] -> [..., out] that can have a low-rank adapter (F-LoRA, M3).

    The adapter is the entry of this module in the collection `adapter`: a [in, R], core [R, R] and
    b [out, R] add `a core b'` to the kernel. Without an entry the map has no adapter.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _kernel, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # The adapter is a second path beside the kernel, which itself stays as it is.
        y = broadcast.add(linear(x, kernel), bias)
        if self.has_variable("adapter", "core"):
            a, core, b = (self.get_variable("adapter", name) for name in ("a", "core", "b"))
            # Never compute the product of all three, because it is as large as the kernel.
            projected = linear(x, a)
            # Only a caller that asks for the collection `seen` gets it; otherwise it costs nothing.
            self.sow("seen", "projected", projected)
            y += linear(projected, core @ b.T)
        return y


class Bottleneck(nn.Module):
    """relu(x down + down_bias) up + up_bias [..., width] of the entry in the collection `adapter`.

    It is the parallel adapter of AdaptFormer (Chen et al. 2022): x is not normalised. Only a block
    with an entry calls it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        names = ("down", "down_bias", "up", "up_bias")
        down, down_bias, up, up_bias = (self.get_variable("adapter", name) for name in names)
        hidden = nn.relu(broadcast.add(linear(x, down), down_bias))
        return broadcast.add(linear(hidden, up), up_bias)


class LayerScale(nn.Module):
    """x * gamma, with one learned number for each channel (Touvron et al. 2021)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.ones, (x.shape[-1],))
        return broadcast.multiply(x, gamma)


class Block(nn.Module):
    """One block, attention then MLP: [B, T, width] -> the same.

    gated: number of last tokens that are a prompt behind the `gate`: see `gated_attention`.
    cheap: the backward pass computes norms, attention weights and GELU again from their inputs.
    This is a few percent of the work, and saves the memory for their derivatives.
    """

    heads: int
    layer_scale: bool
    epsilon: float
    dtype: jnp.dtype
    cheap: bool
    gated: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, gate: jax.Array | None = None) -> jax.Array:
        batch, tokens, width = x.shape

        def scaled(name, branch):
            return LayerScale(name=name)(branch) if self.layer_scale else branch

        def light(function):
            return jax.checkpoint(function) if self.cheap else function

        # Attention: norm first, then the sum with the input (pre-norm).
        y = _norm(self.epsilon, "norm1", self.cheap)(x).astype(self.dtype)
        split = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (Site(width, name=name)(y).reshape(split) for name in "qkv")
        # Its softmax is float32 for every dtype of q, k and v.
        if gate is None:
            y = light(jax.nn.dot_product_attention)(q, k, v).reshape(x.shape)
        else:
            attention = functools.partial(gated_attention, prompt=self.gated)
            y = light(attention)(q, k, v, gate).reshape(x.shape)
        x += scaled("scale1", Site(width, name="proj")(y))
        # MLP, in the same form.
        y = _norm(self.epsilon, "norm2", self.cheap)(x).astype(self.dtype)
        y = light(_gelu)(Site(MLP_RATIO * width, name="fc1")(y))
        y = scaled("scale2", Site(width, name="fc2")(y))
        if self.has_variable("adapter", BESIDE):
            y += Bottleneck(name=BESIDE)(x)
        return x + y


class VisionTransformer(nn.Module):
    """Features float32 [B, feature_width] of normalised images [B, image_size, image_size, 3].

    They are class tokens after the last norm: see `model.features`. `prompt` [m, width] or None is
    placed after the class token, before registers and patches, and has no position (M7). A prompt
    with gates, `{"tokens": [m, width], "gates": [depth]}`, comes after all others: see
    `gated_attention`. Raises `ValueError` for images of another shape. The settings have already
    checked that the patch divides the image size.

    kept: number of first blocks whose output [B, T, width] may take the place of images; a call
    with `lower` gives it. 0 = only images are read.
    """

    model: settings.ViT
    image_size: int
    kept: int = 0

    @nn.compact
    def __call__(
        self, images: jax.Array, prompt: jax.Array | dict | None = None, *, lower: bool = False
    ) -> jax.Array:
        sizes = self.model.sizes
        # The features may also read the last of the skipped blocks.
        skips = self.kept and images.ndim == 3
        first, outputs = (self.kept, [images]) if skips else (0, [])
        x = images if skips else self._embedded(images)
        gated, gates = 0, [None] * sizes.depth
        if isinstance(prompt, Mapping):
            gated, gates = len(prompt["tokens"]), prompt["gates"]
            rows = broadcast.repeat(prompt["tokens"], x.shape[0], x.dtype)
            x = jnp.concatenate([x, rows], axis=1)
        elif prompt is not None:
            x = _after_class_token(x, prompt)
        # `blocks` keeps only the input of each block for the backward pass; `cheap` keeps all but
        # what costs little to compute again.
        block = nn.remat(Block) if self.model.remat == "blocks" else Block
        for index in range(first, self.kept if lower else sizes.depth):
            x = block(
                sizes.heads,
                bool(self.model.layer_scale),
                self.model.layer_norm_eps,
                jnp.dtype(self.model.dtype),
                self.model.remat == "cheap",
                gated,
                name=block_name(index),
            )(x, gates[index])
            outputs.append(x)
        return x if lower else self._features(outputs[-self.model.feature_blocks :], gated)

    def _features(self, outputs: list[jax.Array], gated: int) -> jax.Array:
        """Features [B, feature_width] from the outputs [B, T, width] of the last blocks.

        gated: number of tokens of a gated prompt, which come last.
        """
        norm = _norm(self.model.layer_norm_eps, "norm")
        # The final norm is that of the last block; it also brings earlier tokens to one size.
        features = [norm(x[:, 0]) for x in outputs]
        if self.model.features == "cls+mean":
            # Class token, prompt and registers come before the patches.
            last = outputs[-1][:, : outputs[-1].shape[1] - gated]
            patches = last[:, -(grid_side(self.model, self.image_size) ** 2) :]
            features.append(norm(patches).mean(axis=1))
        return jnp.concatenate(features, axis=-1) if len(features) > 1 else features[0]

    def _embedded(self, images: jax.Array) -> jax.Array:
        """What the first block reads, without a prompt: [B, T, width]."""
        # Without this check the reshape of the patches would fail, without a word about images.
        if images.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"images of shape {list(images.shape)}: the vision transformer reads "
                f"[B, {self.image_size}, {self.image_size}, 3]; resize them, and repeat grey "
                "images three times"
            )
        sizes, dtype = self.model.sizes, jnp.dtype(self.model.dtype)
        x = self._tokens(images.astype(dtype), sizes, dtype)
        # Here the patches already have their positions, so registers and prompt get none (M7).
        if self.model.registers:
            shape = (self.model.registers, sizes.width)
            x = _after_class_token(x, self.param("registers", _normal, shape))
        # The mean over the patches, for a caller that asks for the collection `seen`.
        patches = grid_side(self.model, self.image_size) ** 2
        self.sow("seen", "mean_patch", x[:, -patches:].mean(axis=1))
        return x

    def _tokens(self, images: jax.Array, sizes: settings.Sizes, dtype) -> jax.Array:
        """Class token and patches with their positions: [B, 1 + grid**2, width]."""
        side = grid_side(self.model, self.image_size)
        patch = (sizes.patch, sizes.patch)
        cut = nn.Conv(
            sizes.width, patch, patch, "VALID", dtype=dtype, promote_dtype=broadcast.keep_bias,
            name="patches",
        )  # fmt: skip
        # The shape and not `len`: in an exported program the number of images is a symbol.
        count = images.shape[0]
        patches = cut(images).astype(dtype).reshape(count, side**2, sizes.width)
        token = self.param("class_token", _normal, (sizes.width,))
        position = self.param("position", _normal, (1 + side**2, sizes.width))
        tokens = [broadcast.repeat(token[None], count, dtype), patches]
        return broadcast.add(jnp.concatenate(tokens, axis=1), position)


def gated_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, gate: jax.Array, *, prompt: int
) -> jax.Array:
    """Attention [B, T, H, d] in which the last `prompt` tokens count behind a gate.

    The other tokens get att(q, k, v) among themselves plus tanh(gate) att(q, k_p, v_p) over the
    prompt: the zero-initialised attention of LLaMA-Adapter (Zhang et al. 2023). With a gate of 0
    they do not see the prompt. The prompt itself attends to all tokens.
    """
    attention, images = jax.nn.dot_product_attention, q.shape[1] - prompt
    among = attention(*(x[:, :images] for x in (q, k, v)))
    from_prompt = attention(q[:, :images], k[:, images:], v[:, images:])
    among += (jnp.tanh(gate) * from_prompt).astype(among.dtype)
    return jnp.concatenate([among, attention(q[:, images:], k, v)], axis=1)


def block_name(index: int) -> str:
    """Name of block `index`, counted from 0, in the trees of parameters and adapters."""
    return f"block_{index:02d}"


def kept_shape(model: settings.ViT, image_size: int) -> tuple[int, int]:
    """(T, width) of the output of a block, without a prompt."""
    return 1 + model.registers + grid_side(model, image_size) ** 2, model.sizes.width


def grid_side(model: settings.ViT, image_size: int) -> int:
    """Patches along one side of an image of `image_size` pixels, a multiple of the patch."""
    return image_size // model.sizes.patch


def site_shapes(
    model: settings.ViT, sites: tuple[str, ...], blocks: tuple[int, ...]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Kernel shape (in, out) of every adapted site: {block name: {site: shape}}.

    `sites` are some of `settings.SITES`, and `blocks` count from 0; the settings have checked both
    (M2: q and v of all blocks).
    """
    sizes = model.sizes
    width, inner = sizes.width, MLP_RATIO * sizes.width
    # q, k, v and the projection have one width; the two maps of the MLP are four times as wide
    # inside.
    shapes = dict.fromkeys(("q", "k", "v", "proj"), (width, width))
    shapes |= {"fc1": (width, inner), "fc2": (inner, width)}
    return {block_name(block): {site: shapes[site] for site in sites} for block in blocks}


def abstract_parameters(model: settings.ViT, image_size: int) -> dict:
    """Shapes and dtypes (float32) of the tree "params"; nothing is allocated."""
    # A copy of the dictionaries, because a caller may change its own.
    return jax.tree.map(lambda leaf: leaf, _shapes(model, image_size))


@functools.lru_cache(maxsize=8)
def _shapes(model: settings.ViT, image_size: int) -> dict:
    # Kept, because tracing takes a second for a large model, and several checks need the shapes.
    return jax.eval_shape(lambda key: init_parameters(model, image_size, key), jax.random.key(0))


def init_parameters(model: settings.ViT, image_size: int, key: jax.Array) -> dict:
    """The tree "params" with random values, for images of `image_size` pixels."""
    # The values do not matter: only shapes decide the parameters.
    images = jnp.zeros((1, image_size, image_size, 3))
    return VisionTransformer(model, image_size).init(key, images)["params"]


def parameter_count(model: settings.ViT, image_size: int) -> int:
    """Number of parameters, without heads."""
    leaves = jax.tree.leaves(abstract_parameters(model, image_size))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _after_class_token(x: jax.Array, tokens: jax.Array) -> jax.Array:
    """[B, 1 + T, width] with `tokens` [m, width] between the first token and the others."""
    rows = broadcast.repeat(tokens, x.shape[0], x.dtype)
    return jnp.concatenate([x[:, :1], rows, x[:, 1:]], axis=1)


def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


def _norm(epsilon: float, name: str, cheap: bool = False) -> nn.LayerNorm:
    norm = nn.remat(nn.LayerNorm) if cheap else nn.LayerNorm
    # Two passes, because the mean of squares minus the square of the mean is inaccurate in float32.
    return norm(epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)
