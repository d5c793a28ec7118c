"""JDCL: one network generates and classifies, and the previous network teaches it old classes.

Skierś & Deja, "Joint Diffusion Models in Continual Learning", ICCV 2025; public code
pskiers/Joint-Diffusion-in-Latent-Space. The features of an image without noise are the means over
the pixels of all feature maps of the U-Net's encoder and its middle; a classifier with one hidden
layer reads them. With the old network v', h' and CE the cross-entropy, the loss of an image is

    new classes:       |v - (x1 - x0)|^2 + c CE(h, y)
    replayed classes:  d |v - v'|^2 + s CE(h, softmax h')

where c, d, s are `jdcl.classification`, `jdcl.distillation` and `jdcl.soft_labels`; squares are
means over pixels. The defaults are those of its code for one stage per task
(`baselines/cl/joint+KD`): 1e-3, 1 and 1e-3.

Translated from diffusion to flows, and ours:

* The networks agree on the velocity instead of the predicted noise; an image without noise is at
  t = 1 instead of step 0.
* Its best variant first trains another network on the new task alone, for as many steps, and then
  teaches from both. Here a task has one stage, as all methods of this harness have.
* Its U-Net knows no class: it draws replay without guidance (scale 0 in its code) and labels it
  with its classifier. Here the U-Net has the class embedding of its siblings, so that the judge can
  ask for a class, and replay has the label that was asked for. The classifier reads features
  without the embedding.
* Its hidden layer and its averages over maps stay; its losses begin together, not after 10,000
  steps.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from flcl.heads.base import mask_unseen
from flcl.methods.rivals.classifying import Classifying
from flcl.models.convolutions import abstract_parameters
from flcl.ops.pixels import to_float


class Head(nn.Module):
    """Logits [B, classes] of features [B, d]; one hidden layer."""

    hidden: int
    classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        hidden = nn.leaky_relu(nn.Dense(self.hidden, name="hidden")(features), 0.2)
        # Zero at the start, so first values do not depend on the room for classes.
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="out")(hidden)


class JDCL(Classifying):
    """The classifier shares the encoder, so its gradient changes the generator, too."""

    name = "jdcl"

    def init_classifier(self, key):
        model = self._model(0.0)
        image = jnp.zeros((1, self.size, self.size, self.run.data.channels))
        features = jax.eval_shape(
            lambda parameters: model.apply({"params": parameters}, image, jnp.ones(1), pooled=True),
            abstract_parameters(model, self.size),
        )
        return self._head().init(key, jnp.zeros(features.shape))["params"]

    def begin(self, memory, task, key):
        trainable, frozen = super().begin(memory, task, key)
        if self.phase(task) == 2:
            frozen["previous"] = {name: memory[name] for name in ("model", "classifier")}
            frozen["old"] = memory["seen"]
        return trainable, frozen

    def mean_loss(self, phase, parameters, fixed, data):
        weights, points = self.run.jdcl, data.points
        train = {"train": data.numbers, "rngs": {"dropout": fixed["dropout"]}}
        dropout = self.phase_settings(phase).dropout

        def outputs(parameters, dropout, train):
            model = self._model(dropout)
            variables = {"params": parameters["model"]}
            v = model.apply(variables, points.x, points.t, data.labels, **train)
            return v, self.answers(parameters, data.images, dropout, train)

        v, logits = outputs(parameters, dropout, train)
        logits = mask_unseen(logits, fixed["seen"])
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
        new = _distance(v, points.velocity) + weights.classification * entropy
        if phase == 1:
            return jnp.mean(new)
        v_old, logits_old = outputs(fixed["previous"], 0.0, {})
        soft = soft_entropy(logits, mask_unseen(logits_old, fixed["old"]))
        old = weights.distillation * _distance(v, v_old) + weights.soft_labels * soft
        return jnp.mean(jnp.where(fixed["old"][data.labels], old, new))

    def logits(self, memory, images):
        return mask_unseen(self.answers(memory, to_float(images), 0.0, {}), memory["seen"])

    def answers(self, parameters, images: jax.Array, dropout: float, train: dict) -> jax.Array:
        """Logits [B, capacity] of images [B, H, W, C] in [-1, 1], of all classes.

        train: what `UNet` needs for dropout; {} = there is none.
        """
        t = jnp.ones(len(images))
        features = self._model(dropout).apply(
            {"params": parameters["model"]}, images, t, pooled=True, **train
        )
        return self._head().apply({"params": parameters["classifier"]}, features)

    def _head(self) -> Head:
        return Head(self.run.jdcl.hidden, self.stream.capacity)


def soft_entropy(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """Cross-entropy [B] of logits [B, K] with softmax(teacher) [B, K]; -inf has no share."""
    probabilities = jax.nn.softmax(teacher)
    # A class with probability 0 may have the logit -inf, and 0 times infinity is not a number.
    terms = jnp.where(probabilities > 0, probabilities * jax.nn.log_softmax(logits), 0.0)
    return -jnp.sum(terms, axis=-1)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean squared difference of each image, [B]."""
    return jnp.mean((a - b) ** 2, axis=(1, 2, 3))
