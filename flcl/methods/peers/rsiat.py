"""RSIAT (Zhao et al., CVPR 2026): representation-steered tuning of one adapter, then alignment.

One adapter beside the MLP of every block is shared by all tasks. With f the features of an image
and f' those before the task:

  first task   CosFace + lambda (pairs of one class together, of two classes apart)
  later tasks  CosFace + beta |f - f'|^2 / d

After a task the old means move by the shift of the task's images, and the linear head is aligned.
Left out of the public code: the small network that maps f' before it is compared with f, with its
loss of orthogonality, and dropout inside the adapter. Its shift of a mean weights images by their
distance; ours is the mean over all images. Without `train.steer` and `train.align` this is SSIAT
(Tan et al., CVPR 2024).
"""

import jax
import jax.numpy as jnp

from flcl import settings
from flcl.data.sequence.stream import Task, TaskStream
from flcl.methods import losses, optimisation
from flcl.methods.peers.alignment import AlignedClassifier
from flcl.models import vit


class RSIAT(AlignedClassifier):
    """Memory, in addition to that of an aligned classifier: `bottleneck`, see `vit.Bottleneck`."""

    name = "rsiat"
    run: settings.RSIATRun

    def __init__(self, run: settings.RSIATRun, stream: TaskStream):
        super().__init__(run, stream)
        self.blocks = run.bottleneck.of_depth(run.model.sizes.depth)

    def parts(self, phase):
        rate = self.run.train.learning_rate
        return super().parts(phase) | {"bottleneck": optimisation.Part(rate)}

    def init(self, key):
        key_base, key_adapter = jax.random.split(key)
        return super().init(key_base) | {"bottleneck": self._fresh(key_adapter)}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        if task.index > 1:
            frozen["before"] = memory["bottleneck"]
        return trainable | {"bottleneck": memory["bottleneck"]}, frozen

    def model(self, phase, trainable, frozen, key, progress):
        del phase, key, progress
        return self._adapted(frozen["trunk"], trainable["bottleneck"]), jnp.zeros(())

    def mean_loss(self, phase, model, trainable, frozen, images, labels, progress):
        train, features = self.run.train, self.encode(images, **model)
        value = self._losses(features, trainable, frozen, labels).mean()
        if phase == 1:
            rise = jnp.minimum(1.0, progress / max(train.steer_warmup, 1e-6))
            pairs = losses.steering(features, labels, train.steer_margin, train.steer_apart)
            return value + train.steer * rise * pairs
        before = self.encode(images, **self._adapted(frozen["trunk"], frozen["before"]))
        return value + train.align * losses.movement(features, before).mean()

    def end(self, memory, task: Task, trainable):
        return super().end(memory, task, trainable) | {"bottleneck": trainable["bottleneck"]}

    def inference(self, memory):
        return self._adapted(memory["trunk"], memory["bottleneck"])

    def added(self, memory, task: Task):
        # Every task changes the one adapter, so every task stores all of it.
        return super().added(memory, task) | {"bottleneck": memory["bottleneck"]}

    def restore(self, memory, task: Task, added):
        return super().restore(memory, task, added) | {"bottleneck": added["bottleneck"]}

    def shared_parameters(self):
        width, hidden = self.width, self.run.bottleneck.width
        # Two kernels and two biases: 1,189,632 for 12 blocks of ViT-B/16 with 64 hidden units.
        return len(self.blocks) * (2 * width * hidden + hidden + width)

    def _fresh(self, key) -> dict:
        """Kaiming-uniform(sqrt 5) down, zero up: nothing is added to the MLP at first."""
        width, hidden = self.width, self.run.bottleneck.width

        def block(key):
            down = jax.random.uniform(key, (width, hidden), minval=-1.0, maxval=1.0) * width**-0.5
            zeros = {"up": jnp.zeros((hidden, width)), "up_bias": jnp.zeros(width)}
            return {"down": down, "down_bias": jnp.zeros(hidden), **zeros}

        keys = jax.random.split(key, len(self.blocks))
        return {vit.block_name(n): block(k) for n, k in zip(self.blocks, keys, strict=True)}

    def _adapted(self, trunk, bottleneck: dict) -> dict:
        """Arguments of `encode`; the scale is a part of `up`."""
        scale = self.run.bottleneck.scale
        adapters = {
            block: {vit.BESIDE: {**v, "up": scale * v["up"], "up_bias": scale * v["up_bias"]}}
            for block, v in bottleneck.items()
        }
        return {"trunk": trunk, "adapters": adapters}
