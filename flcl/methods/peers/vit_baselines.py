"""Alternatives to adapters: frozen features with a head, or full fine-tuning.

The joint upper bound is not a separate method; it is FM-LoRA with `stream.joint`.
"""

import jax.numpy as jnp

from flcl.data.sequence.stream import Task
from flcl.methods import optimisation
from flcl.methods.vit_classifier import ViTClassifier


class LinearProbe(ViTClassifier):
    """Only the linear head trains, on frozen features."""

    name = "linear_probe"

    def remedy(self, phase):
        del phase
        return "lower train.head_learning_rate"


class Frozen(ViTClassifier):
    """No training: the head is solved from statistics of frozen features."""

    name = "frozen"
    trains_head = False

    def steps(self, task: Task, images: int) -> int:
        del task, images
        return 0


class ClassMean(Frozen):
    """The same with the nearest class mean as its head."""

    name = "class_mean"


class Finetune(ViTClassifier):
    """All parameters train in every task."""

    name = "vit_finetune"

    def parts(self, phase):
        return super().parts(phase) | {"trunk": optimisation.Part(self.run.train.learning_rate)}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        # Moved and not copied: an array must not be frozen and trained at once.
        return trainable | {"trunk": frozen.pop("trunk")}, frozen

    def model(self, phase, trainable, frozen, key, progress):
        del phase, frozen, key, progress
        return {"trunk": trainable["trunk"]}, jnp.zeros(())

    def end(self, memory, task: Task, trainable):
        return super().end(memory, task, trainable) | {"trunk": trainable["trunk"]}

    def added(self, memory, task: Task):
        # Here the trunk is part of every task, because every task changes it.
        return super().added(memory, task) | {"trunk": memory["trunk"]}
