"""A linear layer with an output for every class, trained by gradient descent (M8)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flcl.heads.base import affine, rows, with_rows, without_rows


@dataclasses.dataclass(frozen=True)
class Trained:
    """The kernel [d, C] and the bias [C] that training changes; it counts no images.

    whole: whether every task trains the columns of all classes, and so stores them all.
    """

    width: int
    capacity: int
    key: str = "head"
    whole: bool = False

    def init(self, key):
        """Uniform in +-1 / sqrt(d), the usual start of a linear layer; the bias is zero.

        A column depends only on (key, class), so it is the same with any capacity.
        """
        bound = self.width**-0.5

        def column(label):
            key_class = jax.random.fold_in(key, label)
            return jax.random.uniform(key_class, (self.width,), minval=-bound, maxval=bound)

        kernel = jax.vmap(column, out_axes=1)(jnp.arange(self.capacity))
        return {"kernel": kernel, "bias": jnp.zeros(self.capacity)}

    def add(self, state, batch):
        """Returns `state` unchanged."""
        del batch
        return state

    def moved(self, state, move):
        """Returns `state` unchanged: only training changes a layer."""
        del move
        return state

    def take(self, state, labels, slot, everything):
        """The columns of the kernel and the entries of the bias."""
        del slot, everything
        return state if self.whole else rows(state, _columns(labels))

    def put(self, state, labels, slot, taken):
        """Inverse of `take`."""
        del slot
        return with_rows(state, _columns(labels), taken)

    def forget(self, state, label):
        """Zeros in the column of the class."""
        return without_rows(state, _columns(label))

    def bytes_per_class(self):
        """One column and one bias, in float32."""
        return 4 * (self.width + 1)


def _columns(labels) -> dict:
    # The class is the last axis of a kernel.
    return {"kernel": (slice(None), labels), "bias": labels}


class Linear:
    """Scores `features @ kernel + bias`; with `train.loss=cosine` s times the cosine."""

    def __init__(self, run, width: int, capacity: int, slots: int | None):
        del slots
        self.statistics = (Trained(width, capacity),)
        # A method without training has no such keys.
        train = run.train
        self.scale = train.scale if getattr(train, "loss", "") == "cosine" else None

    def solve(self, states, by_domain):
        """The layer as it was trained."""
        del by_domain
        kernel, bias = (np.asarray(states["head"][name]) for name in ("kernel", "bias"))
        if self.scale is not None:
            length = np.linalg.norm(kernel, axis=0, keepdims=True)
            kernel, bias = self.scale * kernel / np.maximum(length, 1e-12), np.zeros_like(bias)
        return {"kernel": kernel[None].astype(np.float32), "bias": bias[None].astype(np.float32)}

    def scores(self, part, features):
        """Computed in full precision, because small differences can decide the answer."""
        if self.scale is not None:
            norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
            features = features / jnp.maximum(norm, 1e-12)
        return affine(part["kernel"], part["bias"], features)
