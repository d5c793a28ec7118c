"""GUIDE: a classifier learns from replay that is guided towards what it is about to forget.

Cywiński et al., "GUIDE: Guidance-based Incremental Learning with Diffusion Models", 2024
(arXiv 2403.03938); public code cywinski/guide. The generator is that of plain generative replay. A
classifier trains beside it on new images and on samples of old classes. These samples are drawn
while it trains, by the generator of the earlier tasks, whose class is an old one, under the
gradient of the *current* classifier at the new class that it finds most likely:

    log p = max over new classes c of log softmax(logits over all classes so far)_c.

So they are old images near the boundary to the new classes, which is where it forgets first.

Translated from diffusion to flows:

* In its code the predicted noise changes by -sqrt(1 - abar) s grad_x log p(c | x0_hat(x)), through
  the network. For the straight path that is + s (1 - t) / t grad_x log p(c | E[x1 | x]) in the
  velocity: `flow.guidance` derives it.
* Its samples come from 50 to 100 DDIM steps; here from the sampler of the run.
* Its classifier makes 2,000 steps for 50,000 to 100,000 of the generator, and draws new samples
  every 5 to 15 steps. Here it makes one step with new samples every `guide.every` steps of the
  generator, in the same loop; in the first task it makes every step.
* Its ResNet-18 trains with SGD; here with Adam, and without batch statistics (ours).

What the judge sees are samples of the generator. They are those of `generative_replay`: the method
is in its classifier, whose own accuracy is stored beside that of the judge.
"""

import jax
import jax.numpy as jnp
import optax

from flcl.flow import guidance, sampler
from flcl.methods import optimisation
from flcl.methods.rivals.classifying import WithResNet, marked
from flcl.ops.pixels import to_float, to_uint8


class GUIDE(WithResNet):
    """The loss is that of the flow plus the cross-entropy of the classifier on guided replay."""

    name = "guide"

    def begin(self, memory, task, key):
        trainable, frozen = super().begin(memory, task, key)
        if self.phase(task) == 2:
            frozen["generator"] = memory["model"]
            frozen["new"] = marked(task, self.stream.capacity)
        return trainable, frozen

    def mean_loss(self, phase, parameters, fixed, data):
        flow = super().mean_loss(phase, parameters, fixed, data)
        classifier = parameters["classifier"]
        if phase == 1:
            return flow + self._entropy(classifier, fixed["seen"], data.images, data.labels)

        def entropy():
            # The samples are data: no gradient goes through the way in which they were drawn.
            guided = self.replayed(jax.lax.stop_gradient(classifier), fixed, data)
            new = fixed["new"][data.labels][:, None, None, None]
            images = jnp.where(new, data.images, guided)
            return self._entropy(classifier, fixed["seen"], images, data.labels)

        step = jnp.round(fixed["progress"] * self.phase_settings(phase).steps).astype(jnp.int32)
        due = self._due(step)
        return flow + jax.lax.cond(due, entropy, lambda: jnp.zeros(()))

    def replayed(self, classifier, fixed, data) -> jax.Array:
        """Guided samples [B, H, W, C] in [-1, 1] of the classes `data.labels` [B].

        classifier: its parameters now. fixed: what is frozen, and `key`. An image depends on its
        number in the batch and not on the other images.
        """
        key = jax.random.fold_in(fixed["key"], 3)  # the flow uses the first three numbers
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(data.numbers)
        noise = jax.vmap(lambda key: jax.random.normal(key, data.images.shape[1:]))(keys)
        generator = {"params": fixed["generator"]}
        velocity = guidance.by_classifier(
            lambda x, t: self._model(0.0).apply(generator, x, t, data.labels),
            lambda images: self.log_new(classifier, fixed, images),
            self.run.guide.scale,
        )
        images, _ = sampler.solve(jax.jit(velocity), noise, self.run.sample)
        return to_float(to_uint8(images))  # stored replay has the levels of real images, too

    def log_new(self, classifier, fixed, images: jax.Array) -> jax.Array:
        """log p [B] of the new class that the classifier finds most likely in images [B, ...]."""
        logarithms = jax.nn.log_softmax(self.answers(classifier, fixed["seen"], images))
        return jnp.max(jnp.where(fixed["new"][None], logarithms, -jnp.inf), axis=-1)

    def optimizer(self, phase):
        rate = self.run.guide.learning_rate
        return optimisation.apart(
            self.phase_settings(phase), rate, None if phase == 1 else self._due
        )

    def _due(self, step: jax.Array) -> jax.Array:
        """Whether the classifier of a later task trains in this step of the generator."""
        return step % self.run.guide.every == 0

    def _entropy(self, classifier, seen, images, labels) -> jax.Array:
        logits = self.answers(classifier, seen, images)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
