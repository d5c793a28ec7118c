"""Features and class scores of many images, by programs that are compiled once."""

from typing import NamedTuple

import grain
import jax
import numpy as np

from flcl.compiling import run_once
from flcl.data import loader
from flcl.methods.base import Classifier
from flcl.train import mesh as meshes


class Inference:
    """Applies a classifier to images in batches of one size.

    Short batches are filled up with copies of their first image, so an image meets the same program
    whatever comes along with it.
    """

    def __init__(self, method: Classifier, mesh):
        self.batch_size = -(-method.run.train.eval_batch_size // mesh.size) * mesh.size
        self._mesh, self._runtime = mesh, method.run.runtime
        same = meshes.replicated(mesh)
        self._features = jax.jit(method.features, out_shardings=same)
        self._scores = jax.jit(method.scores, out_shardings=same, compiler_options=run_once())

    def features(self, memory, images, indices: np.ndarray, advance=None) -> np.ndarray:
        """[N, d] float32 of `images[indices]`, uint8 [*, H, W, C]; `advance` counts images."""
        parts = []
        for number, batch in enumerate(self._batches(images, indices), start=1):
            placed = meshes.place_batch({"images": batch}, self._mesh)
            parts.append(self._features(memory, placed["images"]))
            if advance is not None:
                advance(min(number * self.batch_size, len(indices)))
        return np.concatenate(jax.device_get(parts))[: len(indices)]

    def _batches(self, images, indices: np.ndarray):
        """Full batches of `images[indices]`, read ahead by threads."""

        def read(number: int) -> np.ndarray:
            chosen = indices[number * self.batch_size : (number + 1) * self.batch_size]
            return np.asarray(images[np.resize(chosen, self.batch_size)])

        count = -(-len(indices) // self.batch_size)
        dataset = grain.MapDataset.range(count).map(read)
        runtime = self._runtime
        return loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch)

    def scores(self, memory, features: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of both heads by name, [N, capacity]; -inf for a class that is not learned."""
        parts = []
        for start in range(0, len(features), self.batch_size):
            part = features[start : start + self.batch_size]
            filled = np.zeros((self.batch_size, features.shape[1]), np.float32)
            filled[: len(part)] = part
            found = jax.device_get(self._scores(memory, filled))
            parts.append({name: value[: len(part)] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
