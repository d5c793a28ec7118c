"""DDGR: generative replay whose samples are drawn under the guidance of a classifier.

Gao & Liu, "DDGR: Continual Learning with Deep Diffusion-based Generative Replay", ICML 2023; public
code xiaocangshengGR/DDGR. Before a task, the classifier of the earlier tasks guides the sampling of
old classes; classifier and generator then both train on these samples and the new images.

Translated from diffusion to flows:

* In its code a step of the reverse chain moves its mean by the variance times
  s grad log p(y | x_t), as Dhariwal & Nichol do. The same change of the score adds
  s (1 - t) / t grad log p(y | x_t) to the velocity: `flow.guidance` derives it.
* Its code asks the classifier, which learns from images without noise, at the noisy x_t. We ask it
  at the image E[x1 | x_t] that the velocity promises, as GUIDE does (ours).
* Its class-conditional U-Net with s = 1, and logits of learned classes only, stay.

All samples of this method are guided, also those that the judge sees. The paper trains an AlexNet
or a ResNet with SGD after the generator; here a ResNet with Adam trains in the same steps (ours).
"""

import jax
import jax.numpy as jnp
import optax

from flcl.flow import guidance
from flcl.methods import optimisation
from flcl.methods.rivals.classifying import WithResNet


class DDGR(WithResNet):
    """The loss is that of the flow plus the cross-entropy over all classes so far."""

    name = "ddgr"

    def mean_loss(self, phase, parameters, fixed, data):
        flow = super().mean_loss(phase, parameters, fixed, data)
        logits = self.answers(parameters["classifier"], fixed["seen"], data.images)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
        return flow + jnp.mean(entropy)

    def optimizer(self, phase):
        return optimisation.apart(self.phase_settings(phase), self.run.guide.learning_rate)

    def class_parameters(self, memory, label):
        guide = {name: memory[name] for name in ("classifier", "seen")}
        return {**super().class_parameters(memory, label), **guide}

    def velocity(self, class_parameters):
        def log_probability(images):
            seen, label = class_parameters["seen"], class_parameters["label"]
            logits = self.answers(class_parameters["classifier"], seen, images)
            return jax.nn.log_softmax(logits)[:, label]

        free = super().velocity(class_parameters)
        return guidance.by_classifier(free, log_probability, self.run.guide.scale)
