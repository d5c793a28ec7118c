"""One pass over the images of a task before it trains, whose sums a method reads."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from flcl import waiting
from flcl.compiling import run_once
from flcl.data import loader
from flcl.data.selection import Selection, joined
from flcl.data.sequence.stream import Task
from flcl.devices import hosts, sharding
from flcl.methods.base import Classifier, Memory


class Survey:
    """Collects the sums of `Classifier.survey`; the program is compiled once for all tasks."""

    def __init__(self, method: Classifier, mesh):
        self._method, self._mesh = method, mesh

        def add(sums, memory, compared, batch):
            return jax.tree.map(jax.numpy.add, sums, method.survey(memory, compared, batch))

        same = sharding.replicated(mesh)
        self._first = jax.jit(method.survey, out_shardings=same, compiler_options=run_once())
        self._add = jax.jit(add, out_shardings=same, donate_argnums=0)

    def memory(
        self,
        memory: Memory,
        task: Task,
        images: Mapping[int, Selection],
        progress: Callable[[str, int], Callable[..., None]],
    ) -> Memory:
        """`Classifier.with_survey`, with the sums over all `images` of `task`, by label.

        progress: makes a bar with a text and a number of images. Every image counts once, label
        after label; the rest of the last batch has the weight 0.
        """
        images = joined(images)
        advance = progress(f"survey of task {task.index}", len(images))
        method, run = self._method, self._method.run
        size = run.train.batch_size  # the devices divide it, and have room for its gradients
        rows, runtime = hosts.rows(size), run.runtime
        compared = np.isin(np.arange(method.stream.capacity), method.compared(task))
        dataset, sums = loader.in_order(images, size, rows), None
        batches = loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch)
        for number, batch in enumerate(batches):
            left = len(images) - number * size
            batch["weights"] = (np.arange(size)[rows] < left).astype(np.float32)
            placed = sharding.place_batch(batch, self._mesh, frozenset(batch))
            arguments = (memory, compared, placed)
            program = self._add if number else self._first
            arguments = (sums, *arguments) if number else arguments
            with waiting.first_call(program, "the survey of a task", (run.method, run.model)):
                sums = program(*arguments)
            advance(min(len(images), (number + 1) * size))
        memory = method.with_survey(memory, task, jax.device_get(sums))
        return sharding.place(memory, self._mesh, method.divides)

    def lower(self, memory, platform: str | None = None) -> jax.stages.Lowered:
        """The program of every batch but the first, made from shapes only.

        platform: the target platform, such as `tpu`; None = the platform of the mesh.
        """
        method, spread = self._method, sharding.over_devices(self._mesh)
        batch = method.abstract_batch(1)
        size = method.run.train.batch_size
        batch = batch | {"weights": jax.ShapeDtypeStruct((size,), np.float32)}
        batch = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=spread)
            for name, leaf in batch.items()
        }
        compared = jax.ShapeDtypeStruct((method.stream.capacity,), bool)
        sums = jax.eval_shape(method.survey, memory, compared, batch)
        sums = sharding.replicated_like(sums, self._mesh)
        traced = self._add.trace(sums, memory, compared, batch)
        return traced.lower(lowering_platforms=platform and (platform,))
