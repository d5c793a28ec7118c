"""Sampling of learned classes on all devices."""

import functools
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import settings, waiting
from flcl.compiling import kept
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.flow import sampler
from flcl.methods.base import Generator


class ClassSampler:
    """Compiled sampling of a method's classes.

    An image depends only on (key, label, index). Images are solved in chunks of a fixed size, and
    each index has a fixed place in its chunk. So the number of images and the other classes do not
    change an image. The compiled program gets the parameters of one class and the indices of one
    chunk. So it serves all classes and all numbers of images.

    noise: by label, another number that chooses the noise of a class: see `LearnedTask.noise`.
    """

    def __init__(
        self,
        method: Generator,
        sample: settings.Sample,
        mesh: Mesh,
        noise: Mapping[int, int] | None = None,
    ):
        self.method, self.sample, self._noise = method, sample, noise or {}
        self._chunk, self._mesh = meshes.rounded_up(sample.chunk, mesh), mesh
        self._compiled = _program(method, sample, mesh)

    def __call__(self, memory, key: jax.Array, labels, count: int) -> tuple[np.ndarray, int]:
        """Images uint8 [K, count, H, W, C] of `labels` [K], and function evaluations per image."""
        drawn = [self.one_class(memory, key, label, count) for label in labels]
        # dopri5 needs more calls for some classes than for others; the largest number is reported.
        return np.stack([images for images, _ in drawn]), max(calls for _, calls in drawn)

    def one_class(self, memory, key: jax.Array, label: int, count: int) -> tuple[np.ndarray, int]:
        """Images uint8 [count, H, W, C] and evaluations per image, by one program for any count."""
        parameters = self.method.class_parameters(memory, np.int32(label))
        run = self.method.run
        about = (run.method, run.model, run.data.image_size, self.sample)
        label, drawn, most = np.int32(self._noise.get(int(label), label)), [], 0
        # A loop in Python: the number of chunks is not part of the program.
        for start in range(0, count, self._chunk):
            indices = np.arange(start, start + self._chunk, dtype=np.int32)
            with waiting.first_call(self._compiled, "the sampler", about):
                images, calls = self._compiled(parameters, key, label, indices)
            drawn.append(np.asarray(images))
            most = max(most, self._checked(int(calls)))
        # The images after `count` only fill the last chunk.
        return np.concatenate(drawn)[:count], most * sampler.networks(self.sample)

    def lower(self, memory, key: jax.Array, platform: str | None = None) -> jax.stages.Lowered:
        """The program of `one_class` for one full chunk, made from shapes only.

        platform: the target platform, such as `tpu`; None = the platform of the mesh.
        """
        same = sharding.replicated(self._mesh)
        label = jax.ShapeDtypeStruct((), np.int32, sharding=same)
        chunk = jax.ShapeDtypeStruct((self._chunk,), np.int32, sharding=same)
        parameters = jax.eval_shape(self.method.class_parameters, memory, label)
        parameters = sharding.abstract(parameters, self._mesh, self.method.divides)
        traced = self._compiled.trace(parameters, key, label, chunk)
        return traced.lower(lowering_platforms=platform and (platform,))

    def _checked(self, calls: int) -> int:
        if not sampler.arrived(calls, self.sample):
            raise ValueError(
                f"sample.solver='dopri5' did not reach t = 1 in {sampler.DOPRI5_MAX_STEPS} steps: "
                f"raise sample.rtol={self.sample.rtol} and sample.atol={self.sample.atol}, or use "
                "a solver with fixed steps"
            )
        return calls


@kept
def _program(method: Generator, sample: settings.Sample, mesh: Mesh):
    """The compiled sampler of a method."""
    data, spread = method.run.data, sharding.over_devices(mesh)
    function = sampler.make_sampler(
        functools.partial(method.sampled, sample=sample),
        (data.image_size, data.image_size, data.channels),
        sample,
        lambda x: jax.lax.with_sharding_constraint(x, spread),
    )
    # Replicated, so every process can train the same judge on all images.
    return jax.jit(function, out_shardings=sharding.replicated(mesh))
