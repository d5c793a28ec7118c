"""Generative replay with a classifier that is part of what is learned."""

import abc
import math

import jax
import jax.numpy as jnp
import numpy as np

from flcl.heads.base import mask_unseen
from flcl.methods.unet_baselines import GenerativeReplay
from flcl.models.resnet import ResNet18
from flcl.ops.pixels import to_float


class Classifying(GenerativeReplay):
    """A generator with a classifier of all classes so far.

    Memory: `model` (the U-Net), `classifier`, and `seen`, bool [capacity]: the learned labels. Real
    images of old classes are never read again; the classifier learns from their samples, too.
    """

    classifies = True

    @abc.abstractmethod
    def init_classifier(self, key: jax.Array):
        """The first parameters of the classifier; they do not depend on the room for classes."""

    def init(self, key):
        return {
            **super().init(key),  # the generator of `generative_replay`, with the same bits
            "classifier": self.init_classifier(jax.random.fold_in(key, 1)),
            "seen": jnp.zeros(self.stream.capacity, bool),
        }

    def begin(self, memory, task, key):
        del key
        trainable = {name: memory[name] for name in ("model", "classifier")}
        return trainable, {"seen": _with(memory["seen"], task)}

    def end(self, memory, task, trainable):
        return {**trainable, "seen": _with(memory["seen"], task)}

    def describe(self) -> dict:
        memory = jax.eval_shape(self.init, jax.random.key(0))
        classifier = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(memory["classifier"]))
        sizes = super().describe()
        stored = [size + 4 * classifier + self.stream.capacity for size in sizes["bytes_per_task"]]
        return {**sizes, "classifier_parameters": classifier, "bytes_per_task": stored}


class WithResNet(Classifying):
    """The classifier is a ResNet of its own, as in the papers of DDGR and GUIDE.

    Its norms are group norms: batch statistics are state that no gradient changes, and an image's
    answer would depend on the other images of its batch (ours).
    """

    def init_classifier(self, key):
        image = jnp.zeros((1, self.size, self.size, self.run.data.channels))
        return self.resnet().init(key, image, train=False)["params"]

    def resnet(self) -> ResNet18:
        """The classifier as a module."""
        guide = self.run.guide
        return ResNet18(self.stream.capacity, guide.width, guide.stages, stateless=True)

    def logits(self, memory, images):
        return self.answers(memory["classifier"], memory["seen"], to_float(images))

    def answers(self, classifier, seen: jax.Array, images: jax.Array) -> jax.Array:
        """Logits [B, capacity] of images [B, H, W, C] in [-1, 1]; -inf where not `seen`."""
        logits = self.resnet().apply({"params": classifier}, images, train=False)
        return mask_unseen(logits, seen)


def marked(task, capacity: int) -> jax.Array:
    """Which labels are those of `task`, bool [capacity]."""
    return _with(jnp.zeros(capacity, bool), task)


def _with(seen: jax.Array, task) -> jax.Array:
    return seen.at[np.asarray(task.labels, np.int32)].set(True)
