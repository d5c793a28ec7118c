"""The outputs of the blocks that never train, computed once for each image of a run.

Where all that trains sits in the last blocks, and no image is changed at random, the blocks below
give an image the same output for ever. A selection of these outputs then takes the place of a
selection of images: see `model.keep_lower`. Two programs then take the place of one, and the
last bits of a gradient may be rounded otherwise.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import waiting
from flcl.compiling import kept
from flcl.data import loader
from flcl.data.selection import Selection, joined
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts, sharding
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier, Memory, Method

Progress = Callable[[str, int], Callable[..., None]]
"""(description, total) -> a function that is called with the number of finished items."""


def silent(*_) -> Callable[..., None]:
    """A `Progress` that shows nothing."""
    return lambda *_: None


class Lower:
    """Keeps the outputs of a run's own images in memory, once they were asked for.

    A method that keeps no blocks gets its images back. So do images of other sources, such as
    samples of a generator. progress: shows how many images are done, and may stop the work.
    """

    def __init__(self, method: Method, mesh: Mesh, data: TaskData, progress: Progress = silent):
        self._method, self._mesh, self._progress = method, mesh, progress
        keeps = isinstance(method, Classifier) and method.kept_blocks
        splits = data.splits() if keeps else []
        # By the identity of the array (or decoder): selections of one split share its outputs.
        self._outputs = {id(each.images): _Outputs(len(each.images), method) for each in splits}

    def by_label(self, memory: Memory, images: Mapping[int, Selection]) -> dict[int, Selection]:
        """The images of each label, or what is kept in their place."""
        if not self._outputs:
            return dict(images)
        self.of(memory, joined(images))  # at once, because a label may have few images
        return {label: self.of(memory, each) for label, each in images.items()}

    def of(self, memory: Memory, images: Selection) -> Selection:
        """The outputs float [N, T, width] of images in their place, with the same labels."""
        outputs = self._outputs.get(id(images.images))
        if outputs is None:
            return images
        missing = outputs.missing(images.indices)
        if len(missing):
            self._compute(memory, Selection(images.images, missing), outputs)
        return Selection(outputs, images.indices, images.labels)

    def _compute(self, memory: Memory, images: Selection, outputs: "_Outputs") -> None:
        size, runtime = _batch_size(self._method, self._mesh), self._method.run.runtime
        program, what = program_of(self._method, self._mesh), "blocks that never train"
        about = (self._method.run.model, self._method.run.data.image_size)
        advance = self._progress(f"{what}, once for each image", len(images))
        dataset = loader.in_order(images, size, hosts.rows(size))
        batches = loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch)
        for number, batch in enumerate(batches):
            placed = sharding.place_batch({"images": batch["images"]}, self._mesh)
            with waiting.first_call(program, what, about):
                done = np.asarray(program({"trunk": memory["trunk"]}, placed["images"]))
            start = number * size
            outputs.put(images.indices[start : start + size], done)
            advance(min(start + size, len(images)))


class _Outputs:
    """Outputs of some images of a split, indexed like an array [*, T, width] by image."""

    def __init__(self, count: int, method: Classifier):
        one = method.inputs(1)
        self.shape, self.dtype = (count, *one.shape[1:]), np.dtype(one.dtype)
        self._rows: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """The images among `indices` [N] that have no output yet, each once, ascending."""
        return np.array(sorted({*np.asarray(indices).tolist()} - self._rows.keys()), np.int64)

    def put(self, indices: np.ndarray, outputs: np.ndarray) -> None:
        """Keeps the first rows of `outputs` for `indices`; the rest filled up a batch."""
        self._rows.update(zip(np.asarray(indices).tolist(), outputs, strict=False))

    def __getitem__(self, indices) -> np.ndarray:
        chosen = np.asarray(indices).tolist()
        outputs = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for row, index in enumerate(chosen):
            outputs[row] = self._rows[index]
        return outputs


@kept
def program_of(method: Classifier, mesh: Mesh):
    """The compiled `Classifier.lower`; every process has the outputs of all images."""
    return jax.jit(method.lower, out_shardings=sharding.replicated(mesh))


def lowered(
    method: Classifier, mesh: Mesh, memory: Memory, platform: str | None = None
) -> jax.stages.Lowered:
    """The program of one batch, made from shapes only; platform: as in `Inference.lower`."""
    data, spread = method.run.data, sharding.over_devices(mesh)
    shape = (_batch_size(method, mesh), data.image_size, data.image_size, data.channels)
    images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=spread)
    traced = program_of(method, mesh).trace({"trunk": memory["trunk"]}, images)
    return traced.lower(lowering_platforms=platform and (platform,))


def _batch_size(method: Classifier, mesh: Mesh) -> int:
    # Always full batches: the size of a batch may decide the last bit of a sum, and a run that was
    # stopped meets its images in other portions.
    return meshes.rounded_up(method.run.train.eval_batch_size, mesh)
