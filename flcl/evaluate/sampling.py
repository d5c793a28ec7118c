"""Sampling of learned classes on all devices."""

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.compiling import kept
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.flow import sampler
from flcl.methods.base import Generator


class ClassSampler:
    """Compiled sampling of a method's classes.

    An image depends only on (key, label, index). Images are solved in chunks of a fixed size, and
    each index has a fixed place in its chunk. So the number of images and the other classes do not
    change an image.
    """

    def __init__(self, method: Generator, sample: settings.Sample, mesh: Mesh):
        self.sample = sample
        self._chunk = meshes.rounded_up(sample.chunk, mesh)
        self._same = sharding.replicated(mesh)
        self._compiled = _program(method, sample, mesh)

    def _solve(self, memory, key: jax.Array, labels, indices) -> tuple[np.ndarray, int]:
        """Images [K, ..., H, W, C] and function evaluations per image."""
        images, calls = self._compiled(memory, key, labels, indices)
        if self.sample.solver == "dopri5" and int(calls) > sampler.most_evaluations():
            raise ValueError(
                f"sample.solver='dopri5' did not reach t = 1 in {sampler.DOPRI5_MAX_STEPS} steps: "
                f"raise sample.rtol={self.sample.rtol} and sample.atol={self.sample.atol}, or use "
                "a solver with fixed steps"
            )
        return np.asarray(images), int(calls)

    def __call__(self, memory, key: jax.Array, labels, count: int) -> tuple[np.ndarray, int]:
        """Images uint8 [K, count, H, W, C] of `labels` [K], and function evaluations per image."""
        labels = np.asarray(labels, np.int32)
        images, calls = self._solve(memory, key, labels, self._indices(count))
        # The images after `count` only fill the last chunk.
        return images[:, :count], calls

    def one_class(self, memory, key: jax.Array, label: int, count: int) -> tuple[np.ndarray, int]:
        """Images uint8 [count, H, W, C] and evaluations per image, by one program for any count."""
        labels, parts, most = np.asarray([label], np.int32), [], 0
        # A loop in Python: the number of chunks is not part of the program, so one program serves
        # every count.
        for chunk in self._indices(count):
            images, calls = self._solve(memory, key, labels, chunk[None])
            parts.append(images[0])
            most = max(most, calls)
        return np.concatenate(parts)[:count], most

    def lower(self, memory, key: jax.Array, platform: str | None = None) -> jax.stages.Lowered:
        """The program of `one_class` for one full chunk, made from shapes only.

        platform: the target platform, such as `tpu`; None = the platform of the mesh.
        """
        label = jax.ShapeDtypeStruct((1,), np.int32, sharding=self._same)
        chunk = jax.ShapeDtypeStruct((1, self._chunk), np.int32, sharding=self._same)
        traced = self._compiled.trace(memory, key, label, chunk)
        return traced.lower(lowering_platforms=platform and (platform,))

    def _indices(self, count: int) -> np.ndarray:
        """Image numbers in full chunks, [chunks, chunk]."""
        chunks = -(-count // self._chunk)
        return np.arange(chunks * self._chunk, dtype=np.int32).reshape(chunks, -1)


@kept
def _program(method: Generator, sample: settings.Sample, mesh: Mesh):
    """The compiled sampler of a method."""
    data, spread = method.run.data, sharding.over_devices(mesh)
    function = sampler.make_sampler(
        method.class_velocity,
        (data.image_size, data.image_size, data.channels),
        sample,
        lambda x: jax.lax.with_sharding_constraint(x, spread),
    )
    # Replicated, so every process can train the same judge on all images.
    return jax.jit(function, out_shardings=sharding.replicated(mesh))
