"""The nearest class mean: cosine similarity between features and the mean of each class."""

import chex
import jax.numpy as jnp
import numpy as np


class ClassMean:
    """Part: the sum [capacity, d] of the features of each class, and their count [capacity]."""

    key = "means"

    def init(self, key, width, capacity):
        """Zeros: there are no images yet."""
        del key
        return {"sum": jnp.zeros((capacity, width)), "count": jnp.zeros(capacity)}

    def scores(self, part, features):
        """Cosines in full precision; 0 for a class without images."""
        chex.assert_shape(features, (None, part["sum"].shape[1]))
        # The maximum avoids 0 / 0 for a class without images.
        means = part["sum"] / jnp.maximum(part["count"], 1.0)[:, None]
        return jnp.matmul(_unit(features), _unit(means).T, precision="highest")

    def fit(self, part, features, labels):
        """Adds the images to the sums and counts of their classes."""
        # Sums and not means: what only adds up needs no old image and no order of the tasks.
        total, count = (np.asarray(part[name]).copy() for name in ("sum", "count"))
        # Not `total[labels] += features`, which adds only one image of a label that occurs
        # several times.
        np.add.at(total, labels, features)
        np.add.at(count, labels, 1.0)
        return {"sum": jnp.asarray(total), "count": jnp.asarray(count)}

    def take(self, part, labels):
        """The rows of both arrays."""
        return {name: value[labels] for name, value in part.items()}

    def put(self, part, labels, taken):
        """Inverse of `take`."""
        return {name: part[name].at[labels].set(taken[name]) for name in part}


def _unit(vectors):
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
