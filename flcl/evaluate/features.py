"""Features and class scores of many images; a program is compiled once for each batch size."""

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import waiting
from flcl.compiling import kept, run_once
from flcl.data import loader
from flcl.data.selection import Selection
from flcl.devices import hosts, sharding
from flcl.devices import mesh as meshes
from flcl.evaluate.lower import Lower, Progress, silent
from flcl.methods.base import Classifier

__all__ = ["Inference", "Progress", "silent"]


class Inference:
    """Applies a classifier to images in batches of a few fixed sizes.

    lower: keeps the outputs of blocks that never train; None = every call reads the images.

    Attributes:
      method: the classifier.
    """

    def __init__(self, method: Classifier, mesh, lower: Lower | None = None):
        self.method, self._lower = method, lower
        self._mesh, self._run = mesh, method.run
        self._features, self._scores = _programs(method, mesh)

    def features(self, memory, images: Selection, advance=None) -> np.ndarray:
        """Features float32 [N, d] of images; `advance` gets the number of finished images."""
        if self._lower is not None:
            images = self._lower.of(memory, images)
        size, running, done = self._size(len(images)), None, []
        about = (self._run.method, self._run.model, self._run.data.image_size)
        dataset = loader.in_order(images, size, hosts.rows(size))
        runtime = self._run.runtime

        def collect(batch) -> None:
            done.append(np.asarray(batch))
            if advance is not None:
                advance(min(len(done) * size, len(images)))

        for batch in loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch):
            placed = sharding.place_batch({"images": batch["images"]}, self._mesh)
            # Collected one batch late: the device already computes the next batch, and at most
            # two batches are in memory.
            with waiting.first_call(self._features, "the features", about, size):
                computed = self._features(memory, placed["images"])
            running, finished = computed, running
            if finished is not None:
                collect(finished)
        collect(running)
        return np.concatenate(done)[: len(images)]

    def scores(self, solved, features: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of every head by name, [N, capacity]; -inf for a class that is not learned.

        solved: what `Classifier.solved` returns.
        """
        size, parts = self._size(len(features)), []
        for start in range(0, len(features), size):
            batch = features[start : start + size]
            # Every batch has the same size, so one program serves all; a row does not depend on
            # the other rows.
            filled = np.zeros((size, features.shape[1]), np.float32)
            filled[: len(batch)] = batch
            scores = jax.device_get(self._scores(solved, filled))
            parts.append({name: value[: len(batch)] for name, value in scores.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def lower(self, memory, platform: str | None = None) -> jax.stages.Lowered:
        """The program of `features` for one full batch, made from shapes only.

        platform: the target platform, such as `tpu`; None = the platform of the mesh.
        """
        read = self.method.inputs(self._size(self._run.train.eval_batch_size))
        spread = sharding.over_devices(self._mesh)
        images = jax.ShapeDtypeStruct(read.shape, read.dtype, sharding=spread)
        traced = self._features.trace(memory, images)
        return traced.lower(lowering_platforms=platform and (platform,))

    def _size(self, images: int) -> int:
        """`train.eval_batch_size`, or a power of two for fewer images, rounded up to devices."""
        # Few different sizes, so few programs; a small set is filled up to less than its double.
        size = min(self._run.train.eval_batch_size, 1 << (images - 1).bit_length())
        return meshes.rounded_up(size, self._mesh)


@kept
def _programs(method: Classifier, mesh: Mesh):
    """The compiled features and scores of a method."""
    # Replicated, so every process has the features of all images and computes the same results.
    same = sharding.replicated(mesh)
    features = jax.jit(method.features, out_shardings=same)
    return features, jax.jit(method.scores, out_shardings=same, compiler_options=run_once())
