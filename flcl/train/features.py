"""Features and class scores of many images, by programs that are compiled once for each size."""

from collections.abc import Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np

from flcl import settings
from flcl.compiling import run_once
from flcl.data import loader
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier


class Labelled(NamedTuple):
    """Some images of a split with their labels.

    Attributes:
      images: of the whole split, uint8 [*, H, W, C].
      indices: which of them, [N].
      labels: of those, [N].
    """

    images: object
    indices: np.ndarray
    labels: np.ndarray


def labelled(images, by_label: dict[int, np.ndarray]) -> Labelled:
    """The images of some labels, label by label."""
    indices = np.concatenate(list(by_label.values()))
    return Labelled(images, indices, np.repeat(list(by_label), [len(v) for v in by_label.values()]))


def read_ahead(part: Labelled, size: int, runtime: settings.Runtime) -> Iterator[dict]:
    """This process's rows of batches `{"images", "labels"}` of `size`, read by threads.

    The last batch is filled up with images that it has already.
    """
    own = hosts.rows(size)

    def read(number: int) -> dict:
        chosen = np.resize(np.arange(len(part.indices))[number * size : (number + 1) * size], size)
        chosen = chosen[own]
        images = np.asarray(part.images[part.indices[chosen]])
        return {"images": images, "labels": part.labels[chosen].astype(np.int32)}

    dataset = grain.MapDataset.range(-(-len(part.indices) // size)).map(read)
    return loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch)


class Inference:
    """Applies a classifier to images in batches of a few fixed sizes."""

    def __init__(self, method: Classifier, mesh):
        self._mesh, self._run = mesh, method.run
        same = meshes.replicated(mesh)
        self._features = jax.jit(method.features, out_shardings=same)
        self._scores = jax.jit(method.scores, out_shardings=same, compiler_options=run_once())

    def features(self, memory, part: Labelled, advance=None) -> np.ndarray:
        """[N, d] float32 of some images; `advance` is told the number of finished ones."""
        size, waiting, found = self._size(len(part.indices)), None, []

        def collect(batch) -> None:
            found.append(np.asarray(batch))
            if advance is not None:
                advance(min(len(found) * size, len(part.indices)))

        for batch in read_ahead(part, size, self._run.runtime):
            placed = meshes.place_batch({"images": batch["images"]}, self._mesh)
            # One batch late, so that the next is on its way and no more than two are in memory.
            waiting, done = self._features(memory, placed["images"]), waiting
            if done is not None:
                collect(done)
        collect(waiting)
        return np.concatenate(found)[: len(part.indices)]

    def scores(self, memory, features: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of both heads by name, [N, capacity]; -inf for a class that is not learned."""
        size, parts = self._size(len(features)), []
        for start in range(0, len(features), size):
            part = features[start : start + size]
            filled = np.zeros((size, features.shape[1]), np.float32)
            filled[: len(part)] = part
            found = jax.device_get(self._scores(memory, filled))
            parts.append({name: value[: len(part)] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def lower(self, memory) -> jax.stages.Lowered:
        """The program of `features`, from shapes: one full batch."""
        data, size = self._run.data, self._size(self._run.train.eval_batch_size)
        shape = (size, data.image_size, data.image_size, data.channels)
        spread = meshes.batch_sharding(self._mesh)
        return self._features.lower(memory, jax.ShapeDtypeStruct(shape, np.uint8, sharding=spread))

    def _size(self, images: int) -> int:
        """`train.eval_batch_size`, or for fewer images a power of two; the devices divide it."""
        size = min(self._run.train.eval_batch_size, 1 << (images - 1).bit_length())
        return -(-size // self._mesh.size) * self._mesh.size
