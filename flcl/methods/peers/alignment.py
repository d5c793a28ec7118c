"""Alignment of the linear head after a task: the second stage of SLCA (Zhang et al. 2023).

The head alone is trained on features drawn from Gaussians of all classes so far. SSIAT and RSIAT do
the same with cosines.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flcl import settings
from flcl.data.sequence.stream import Task, TaskStream
from flcl.methods import losses
from flcl.methods.optimisation import SGD_MOMENTUM
from flcl.methods.vit_classifier import ViTClassifier


class AlignedClassifier(ViTClassifier):
    """A classifier whose linear head answers as it was aligned.

    Memory: `head`, the layer as the tasks trained it, where every alignment begins, as in public
    code; `aligned`, the layer after the newest alignment. A task stores all of `aligned`. The
    temperature of the linear head is measured before its alignment.
    """

    def __init__(self, run: settings.SLCARun | settings.RSIATRun, stream: TaskStream):
        self.draws = run.align.covariance
        super().__init__(run, stream)
        self._groups = np.zeros((stream.task_slots, stream.capacity), bool)
        for task in stream.tasks[: stream.task_slots]:
            self._groups[task.index - 1, list(task.labels)] = True

    def init(self, key):
        memory = super().init(key)
        return memory | {"aligned": memory["head"]}

    def end(self, memory, task: Task, trainable):
        memory = super().end(memory, task, trainable)
        return memory | {"aligned": memory["head"]}

    def align(self, memory, key):
        """SGD on cross-entropies over all classes so far; nothing changes in the first task.

        One step for each of `align.epochs` and each entry of `Drawn`, a class or a class in a
        domain; all are traced, so one program serves every task. Public code draws 256 features of
        each class once in an epoch, and we draw the classes of each step at random.
        """
        keys, seen = self.run.align, memory["seen"]
        drawn = self._faded(self.drawn.solve(memory))
        steps = jnp.ceil(keys.epochs * drawn["known"].sum()).astype(jnp.int32)
        tasks = jnp.where(drawn["known"], self._task_of_entry(), 0).max()
        optimizer = optax.chain(
            optax.add_decayed_weights(keys.weight_decay), optax.trace(decay=SGD_MOMENTUM)
        )

        def step(number, state):
            head, momentum = state
            batch = self.drawn.draw(drawn, jax.random.fold_in(key, number), keys.batch_size)
            grads = jax.grad(self._aligned_loss)(head, seen, *batch)
            updates, momentum = optimizer.update(grads, momentum, head)
            rate = keys.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * number / steps))
            return optax.apply_updates(head, optax.tree.scale(-rate, updates)), momentum

        head = memory["head"]
        total = jnp.where(tasks > 1, steps, 0)
        aligned, _ = jax.lax.fori_loop(0, total, step, (head, optimizer.init(head)))
        # The decay of the weights must not reach classes that are not learned.
        kernel = jnp.where(seen[None], aligned["kernel"], head["kernel"])
        bias = jnp.where(seen, aligned["bias"], head["bias"])
        return {"aligned": {"kernel": kernel, "bias": bias}}

    def solved(self, memory):
        return super().solved({**memory, "head": memory["aligned"]})

    def added(self, memory, task: Task):
        return super().added(memory, task) | {"aligned": memory["aligned"]}

    def restore(self, memory, task: Task, added):
        return super().restore(memory, task, added) | {"aligned": added["aligned"]}

    def forget(self, memory, label):
        memory = super().forget(memory, label)
        head = self.calibration.statistics["head"]
        return memory | {"aligned": head.forget(memory["aligned"], label)}

    def _aligned_loss(self, head, seen, features, entries):
        """Mean cross-entropy over all classes so far, a scalar."""
        labels, train, keys = self.drawn.labels(entries), self.run.train, self.run.align
        if train.loss == "cosine":
            # Without a margin, as in public code.
            return losses.cosine(head, seen, features, labels, train.scale, 0.0).mean()
        logits = losses.linear(head, features)
        if keys.temperature:
            learned = self._groups & seen[None]
            logits = losses.normalised(logits, learned, keys.temperature)
        logits = losses.mask_unseen(logits, seen)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def _faded(self, drawn: dict) -> dict:
        """Means times 1 - decay (1 - k / t) for an entry of task k of t, as in public code."""
        task_of = self._task_of_entry()
        newest = jnp.maximum(jnp.where(drawn["known"], task_of, 0).max(), 1)
        factor = 1 - self.run.align.decay * (1 - task_of / newest)
        return drawn | {"mean": drawn["mean"] * factor[:, None]}

    def _task_of_entry(self) -> np.ndarray:
        """The number [E] of the task of each entry: its slot's, or the last one with its class."""
        slots, (tasks, capacity) = self.drawn.moments.slots, self._groups.shape
        if slots is not None:
            return np.repeat(np.arange(1, slots + 1), capacity)
        return np.max(self._groups * np.arange(1, tasks + 1)[:, None], axis=0)
