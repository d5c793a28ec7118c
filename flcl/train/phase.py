"""The programs of a phase, compiled once however many tasks follow."""

import jax

from flcl.compiling import run_once
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier, Method
from flcl.train import state as states
from flcl.train import step as steps
from flcl.train.state import TrainState


class Phase:
    """The compiled programs of one phase.

    Attributes:
      index: 1 or 2.
      step: one optimiser step, compiled.
      per_call: optimiser steps of one call.
      create: `(trainable, steps)` -> state before the first step.
      losses: for a classifier, `(trainable, frozen, images, labels)` -> loss of each image.
    """

    def __init__(self, method: Method, index: int, trainable, frozen, mesh):
        self.index = index
        self.per_call = method.run.runtime.steps_per_call
        self._mesh, self._spread = mesh, method.spread
        optimizer = method.optimizer(index)

        def loss(trainable, frozen, batch, key, progress):
            return method.loss(index, trainable, frozen, batch, key, progress)

        def create(tree, total):
            return states.create(tree, optimizer, total)

        abstract = jax.eval_shape(create, trainable, 1)
        self.create = jax.jit(
            create,
            out_shardings=meshes.tree_sharding(abstract, mesh),
            compiler_options=run_once(),
        )
        step = steps.train_step(loss, optimizer, method.ema_decay(index))
        self.step = steps.compile_step(step, abstract, frozen, mesh, method.spread)
        self._steps = steps.compile_step(step, abstract, frozen, mesh, method.spread, self.per_call)
        if isinstance(method, Classifier):
            self.losses = jax.jit(
                lambda *arguments: method.task_losses(index, *arguments),
                out_shardings=meshes.replicated(mesh),
            )

    def advance(self, state, frozen, batches: list[dict], key) -> tuple[TrainState, list[dict]]:
        """State after one step for each of `batches`, and metrics in their order.

        `per_call` batches make one call; of fewer each makes its own. A metric is a number or, of
        one call, an array [per_call].
        """
        if len(batches) == self.per_call > 1:
            placed = meshes.place_batches(batches, self._mesh, self._spread)
            state, metrics = self._steps(state, frozen, placed, key)
            return state, [metrics]
        found = []
        for batch in batches:
            placed = meshes.place_batch(batch, self._mesh, self._spread)
            state, metrics = self.step(state, frozen, placed, key)
            found.append(metrics)
        return state, found
