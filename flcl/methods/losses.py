"""Losses of the linear head and of features: pure functions, each named by its source.

A head is `{"kernel": [d, C], "bias": [C] or [1, C]}`. `compared` is bool [C]: the classes that a
loss compares.
"""

import chex
import jax
import jax.numpy as jnp
import optax

from flcl.heads.base import mask_unseen

_LEAST = 1e-12
"""Features and columns of this length or less have no direction."""


def linear(head: dict, features: jax.Array) -> jax.Array:
    """Logits [B, C] of features [B, d]."""
    return features @ head["kernel"] + head["bias"].reshape(1, -1)


def local(head: dict, compared: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy [B] over the compared classes (FM-LoRA and its peers, M8)."""
    logits = mask_unseen(linear(head, features), compared)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def cosine(
    head: dict,
    compared: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    scale: float,
    margin: float,
) -> jax.Array:
    """CosFace [B] (Wang et al. 2018, equation 4), the loss of SSIAT and RSIAT.

    -log e^(s (cos_y - m)) / (e^(s (cos_y - m)) + sum over j != y of e^(s cos_j)): cos_j is the
    cosine between the features and column j of the kernel. The bias has no part in it.
    """
    cosines = directions(features) @ directions(head["kernel"], axis=0)
    right = jax.nn.one_hot(labels, cosines.shape[1])
    logits = mask_unseen(scale * (cosines - margin * right), compared)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def movement(features: jax.Array, before: jax.Array) -> jax.Array:
    """Mean square [B] of how far features [B, d] are from those before the task (RSIAT)."""
    chex.assert_equal_shape([features, before])
    return jnp.square(features - before).mean(axis=1)


def steering(features: jax.Array, labels: jax.Array, margin: float, apart: float) -> jax.Array:
    """RSIAT's loss of pairs in the first task, a scalar.

    The mean of 1 - cos over pairs of one class, plus `apart` times the mean of max(0, cos - margin)
    over pairs of two classes. Without such pairs a mean is 0.
    """
    unit = directions(features)
    cosines = unit @ unit.T
    same = labels[:, None] == labels[None]
    together = same & ~jnp.eye(len(labels), dtype=bool)

    def mean(values, pairs):
        return jnp.where(pairs, values, 0.0).sum() / jnp.maximum(pairs.sum(), 1)

    far = mean(jax.nn.relu(cosines - margin), ~same)
    return mean(1.0 - cosines, together) + apart * far


def normalised(logits: jax.Array, groups: jax.Array, temperature: float) -> jax.Array:
    """SLCA's normalised logits [B, C] (Zhang et al. 2023): l / (n tau).

    n is the mean over the tasks of the length of an image's logits of the task's classes. groups:
    bool [T, C], the classes of each task that are learned; a task without classes does not count.
    """
    squares = jnp.where(groups[None], jnp.square(logits)[:, None], 0.0).sum(axis=2)
    lengths = _root(squares) + 1e-7
    learned = groups.any(axis=1)
    mean = jnp.where(learned[None], lengths, 0.0).sum(axis=1) / jnp.maximum(learned.sum(), 1)
    return logits / (mean[:, None] * temperature)


def directions(values: jax.Array, axis: int = 1) -> jax.Array:
    """Values of length 1 along an axis; zeros stay zeros, with a gradient of zero."""
    squares = jnp.square(values).sum(axis=axis, keepdims=True)
    return values / jnp.maximum(_root(squares), _LEAST)


def _root(squares: jax.Array) -> jax.Array:
    """The square root, whose gradient at 0 is 0 and not infinite."""
    safe = jnp.where(squares > 0, squares, 1.0)
    return jnp.where(squares > 0, jnp.sqrt(safe), 0.0)
