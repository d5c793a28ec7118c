"""The judge's training recipe as pure functions."""

import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flcl.data.shuffle import Shuffled
from flcl.heads.base import mask_unseen
from flcl.ops.pixels import random_flip

MOMENTUM = 0.9


def optimizer(weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, before the learning rate is applied.

    Only kernels decay; norm scales, norm offsets and biases do not. Nesterov is off.
    """
    # Decay is added to the gradient before the momentum, as in the SGD of PyTorch.
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_is_kernel), optax.trace(decay=MOMENTUM)
    )


def learning_rate(base: float, step: jax.Array, total: jax.Array) -> jax.Array:
    """Cosine from `base` at step 0 to 0 at step `total`; both may be traced."""
    return base * 0.5 * (1.0 + jnp.cos(jnp.pi * step / total))


def augment(key: jax.Array, images: jax.Array, *, crop: int, flip: bool) -> jax.Array:
    """Random crop of the image padded by `crop` black pixels, then a random horizontal flip.

    images: uint8 [B, H, W, C]; the result has the same shape. Every image has its own random
    numbers. crop=0 and flip=False switch the two steps off.
    """
    chex.assert_rank(images, 4)
    crop_key, flip_key = jax.random.split(key)
    batch, height, width, channels = images.shape
    if crop:
        padded = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
        corners = jax.random.randint(crop_key, (batch, 2), 0, 2 * crop + 1)
        cut = functools.partial(jax.lax.dynamic_slice, slice_sizes=(height, width, channels))
        images = jax.vmap(lambda image, yx: cut(image, (yx[0], yx[1], 0)))(padded, corners)
    return random_flip(flip_key, images) if flip else images


def masked_loss(logits: jax.Array, labels: jax.Array, seen: jax.Array) -> jax.Array:
    """Mean cross-entropy over the seen classes; logits [B, K], labels [B], seen [K]."""
    chex.assert_shape(labels, (len(logits),))
    logits = mask_unseen(logits, seen)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch_order(seed: int, name: str, count: int) -> Shuffled:
    """The order of `count` images in the random stream `name`: see `Shuffled`.

    Batch `step` of size B has the entries step * B to (step + 1) * B - 1, a pure function of these
    numbers. A set smaller than a batch is repeated.
    """
    # Not `hash`, which Python salts in every process.
    return Shuffled(np.arange(count), [seed, zlib.crc32(name.encode())])


def _is_kernel(params) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
