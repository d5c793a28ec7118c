"""The programs of a phase, compiled once however many tasks follow."""

import jax

from flcl.compiling import run_once
from flcl.methods.base import Classifier, Method
from flcl.train import mesh as meshes
from flcl.train import state as states
from flcl.train import step as steps


class Phase:
    """The compiled programs of one phase.

    Attributes:
      index: 1 or 2.
      step: one optimiser step.
      create: `(trainable, steps)` -> state before the first step.
      losses: for a classifier, `(trainable, frozen, images, labels)` -> loss of each image.
    """

    def __init__(self, method: Method, index: int, trainable, frozen, mesh):
        self.index = index
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
        if isinstance(method, Classifier):
            self.losses = jax.jit(
                lambda *arguments: method.task_losses(index, *arguments),
                out_shardings=meshes.replicated(mesh),
            )
