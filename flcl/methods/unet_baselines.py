"""Baselines of FunLoRA: one class-conditional U-Net for all tasks, with or without replay.

The joint upper bound is not a separate method; it is FunLoRA with `stream.joint`.
"""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from einops import rearrange

from flcl import settings
from flcl.data.selection import everything
from flcl.data.sequence.stream import Task, TaskStream
from flcl.flow.path import Points, draw_points, flow_loss
from flcl.methods import base
from flcl.models.convolutions import abstract_parameters, init_parameters
from flcl.models.unet import UNet
from flcl.ops import accumulate
from flcl.ops.pixels import random_flip, to_float


class Images(NamedTuple):
    """The images of a batch on one device.

    Attributes:
      points: points on the paths to them.
      images: float32 [B, H, W, C] in [-1, 1], mirrored or not like those of `points`.
      labels: int32 [B].
      numbers: int32 [B], their places in the whole batch.
    """

    points: Points
    images: jax.Array
    labels: jax.Array
    numbers: jax.Array


class Finetune(base.Generator):
    """Lower bound: the class is an embedding, and every task trains all parameters.

    Memory: `{"model": U-Net parameters}`.
    """

    name = "finetune"

    def __init__(self, run: settings.GeneratorRun, stream: TaskStream):
        super().__init__(run, stream)
        self.size = run.data.image_size

    def init(self, key):
        return {"model": init_parameters(self._model(0.0), self.size, key)}

    def begin(self, memory, task: Task, key):
        del task, key
        # Nothing is frozen and no class is protected: this is how forgetting looks without a
        # method.
        return memory, {}

    def loss(self, phase, trainable, frozen, batch, key, progress):
        """The mean of `mean_loss` over the devices; gradients are exchanged once."""
        key_flip, key_flow, key_dropout = jax.random.split(key, 3)
        per_group, groups = batch["images"].shape[:2]
        images = to_float(rearrange(batch["images"], "n g h w c -> (n g) h w c"))
        if self.run.data.flip:
            images = random_flip(key_flip, images)
        points = draw_points(key_flow, images, groups, self.run.flow)
        # n-major like the images: the labels of the groups repeat in every row.
        labels = jax.numpy.tile(batch["labels"], per_group)
        # What dropout leaves out depends on these numbers and not on the division of the batch.
        numbers = jax.numpy.arange(len(images))
        return accumulate.mean_over_devices(
            functools.partial(self.mean_loss, phase),
            trainable,
            {**frozen, "dropout": key_dropout, "key": key, "progress": progress},
            Images(points, images, labels, numbers),
        )

    def mean_loss(self, phase: int, parameters, fixed, data: Images) -> jax.Array:
        """The mean loss of the images of one device.

        parameters: what trains. fixed: what is frozen, the keys `dropout` and `key` of the step,
        and `progress`.
        """
        model = self._model(self.phase_settings(phase).dropout)

        def velocity(x, t):
            variables, keys = {"params": parameters["model"]}, {"dropout": fixed["dropout"]}
            return model.apply(variables, x, t, data.labels, train=data.numbers, rngs=keys)

        return flow_loss(velocity, data.points)

    def end(self, memory, task: Task, trainable):
        del memory, task
        return trainable

    def added(self, memory, task: Task):
        # Every task changes every weight, so every task stores the whole network.
        del task
        return memory

    def restore(self, memory, task: Task, added):
        del memory, task
        return added

    def class_parameters(self, memory, label):
        # The whole network is common to all classes; the label chooses a row of its embedding.
        return {"model": memory["model"], "label": jax.numpy.asarray(label, jax.numpy.int32)}

    def velocity(self, class_parameters):
        model = self._model(0.0)

        def velocity(x, t):
            labels = jax.numpy.full(x.shape[:1], class_parameters["label"])
            return model.apply({"params": class_parameters["model"]}, x, t, labels)

        return velocity

    def describe(self) -> dict:
        leaves = jax.tree.leaves(abstract_parameters(self._model(0.0), self.size))
        total = sum(math.prod(leaf.shape) for leaf in leaves)
        per_class = 4 * self.run.model.width  # one row of the class embedding
        return {
            "trunk_parameters": total - per_class * self.stream.capacity,
            "parameters_per_class": per_class,
            "adapted_convolutions": [],
            "bytes_per_task": [4 * total for _ in self.stream.tasks],
        }

    def _model(self, dropout: float) -> UNet:
        run = self.run
        return UNet(run.model, run.data.channels, dropout, classes=self.stream.capacity)


class GenerativeReplay(Finetune):
    """Each later task also trains on images of every old class that the model itself generates."""

    name = "generative_replay"
    run: settings.ReplayRun

    def training_images(self, task: Task, real, memory, generate: base.Generate):
        count = self.run.replay.images_per_class or int(np.mean([len(v) for v in real.values()]))
        # Labels of all earlier tasks. Their images come from the model alone; no real image is
        # kept.
        old = [label for t in self.stream.tasks[: task.index - 1] for label in t.labels]
        return {**real, **{k: everything(generate(memory, k, count)) for k in old}}
