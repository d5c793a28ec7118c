"""A linear layer with an output for every class, trained by gradient descent (M8)."""

import chex
import jax
import jax.numpy as jnp


class Linear:
    """Scores `features @ kernel + bias`. Part: kernel [d, capacity], bias [capacity]."""

    key = "head"

    def init(self, key, width, capacity):
        """Uniform in +-1 / sqrt(d), the usual start of a linear layer; the bias is zero."""
        bound = width**-0.5
        kernel = jax.random.uniform(key, (width, capacity), minval=-bound, maxval=bound)
        return {"kernel": kernel, "bias": jnp.zeros(capacity)}

    def scores(self, part, features):
        """Computed in full precision, because small differences can decide the answer."""
        chex.assert_shape(features, (None, part["kernel"].shape[0]))
        scores = jnp.matmul(features, part["kernel"], precision="highest")
        return scores + part["bias"][None]

    def fit(self, part, features, labels):
        """Returns `part` unchanged: this head has no statistics."""
        del features, labels
        return part

    def take(self, part, labels):
        """The columns of the kernel and the entries of the bias."""
        # Columns, because the class is the last axis of a kernel.
        return {"kernel": part["kernel"][:, labels], "bias": part["bias"][labels]}

    def put(self, part, labels, taken):
        """Inverse of `take`."""
        return {
            "kernel": part["kernel"].at[:, labels].set(taken["kernel"]),
            "bias": part["bias"].at[labels].set(taken["bias"]),
        }
