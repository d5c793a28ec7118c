"""Drawing images of learned classes on all devices."""

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.flow.sampler import make_sampler
from flcl.methods.base import Generator
from flcl.train import mesh as meshes


class ClassSampler:
    """Compiled sampling of a method's classes.

    An image depends only on (key, label, index): images are solved in chunks of a fixed size at
    fixed places, so neither how many are asked for nor which classes come along changes one.
    """

    def __init__(self, method: Generator, shape, sample: settings.Sample, mesh: Mesh):
        spread = meshes.batch_sharding(mesh)
        self.sample = sample
        self._chunk = -(-sample.chunk // mesh.size) * mesh.size
        self._same = meshes.replicated(mesh)
        function = make_sampler(
            method.class_velocity,
            shape,
            sample,
            lambda x: jax.lax.with_sharding_constraint(x, spread),
        )
        self._compiled = jax.jit(function, out_shardings=self._same)

    def __call__(self, memory, key: jax.Array, labels, count: int) -> tuple[np.ndarray, int]:
        """uint8 [K, count, H, W, C] of `labels` [K], and the function evaluations per image."""
        chunks = -(-count // self._chunk)
        indices = np.arange(chunks * self._chunk, dtype=np.int32).reshape(chunks, -1)
        labels = np.asarray(labels, np.int32)
        images, calls = self._compiled(memory, key, labels, indices)
        return np.asarray(images)[:, :count], int(calls)
