"""The judge: a classifier trained on generated images only and tested on real images.

Its accuracy is the classification accuracy score (Ravuri & Vinyals 2019). The papers leave the
recipe open; ours is: ResNet-18, SGD with momentum 0.9, a cosine learning rate that falls to 0,
weight decay on kernels, random crop and flip, a new judge after every task. A run has one `Judge`,
which compiles its step once: the number of classes is a fixed capacity; the existing classes and
the number of steps are traced.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flcl import settings, waiting
from flcl.compiling import kept, run_once
from flcl.data.selection import Selection
from flcl.evaluate import recipe
from flcl.heads.base import mask_unseen
from flcl.models.resnet import ResNet18
from flcl.ops.pixels import to_float
from flcl.rng import stream_key

REPORT_EVERY = 10
"""Steps between reads of the loss; the host runs at most this far ahead of the device."""


class JudgeState(NamedTuple):
    """The state that a training step reads and writes."""

    params: Any
    batch_stats: Any
    momentum: Any
    step: jax.Array  # int32 []


class _Programs:
    """The compiled programs of judges with equal settings; each function is traced once."""

    def __init__(self, judge: settings.Judge, num_classes: int, image_shape, everywhere):
        self.settings, self.image_shape = judge, image_shape
        self._model = ResNet18(num_classes, judge.width, judge.stages)
        self._optimizer = recipe.optimizer(judge.weight_decay)
        out = everywhere
        self.init = jax.jit(self.init_state, out_shardings=out, compiler_options=run_once())
        # The batch is divided and the parameters are replicated, so a step sums over devices but
        # never gathers the batch (a test holds this).
        self.step = jax.jit(self._train_step, donate_argnums=0, out_shardings=out)
        self.predict = jax.jit(self._predict_batch, out_shardings=out)

    def init_state(self, key) -> JudgeState:
        blank = jnp.zeros((1, *self.image_shape), jnp.float32)
        variables = self._model.init(jax.random.fold_in(key, 0), blank, train=False)
        momentum = self._optimizer.init(variables["params"])
        return JudgeState(variables["params"], variables["batch_stats"], momentum, jnp.int32(0))

    def _train_step(self, state: JudgeState, batch, seen, key, total):
        judge = self.settings
        # Stream 0 is the initial values, stream 1 the augmentation of every step.
        key = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)
        images = recipe.augment(key, batch["images"], crop=judge.crop, flip=judge.flip)

        def loss_fn(params):
            logits, moved = self._model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                to_float(images),
                train=True,
                mutable=["batch_stats"],
            )
            return recipe.masked_loss(logits, batch["labels"], seen), moved["batch_stats"]

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, momentum = self._optimizer.update(grads, state.momentum, state.params)
        # Not part of the optimiser: a schedule of optax would need a number of steps that is
        # fixed at compile time.
        rate = recipe.learning_rate(judge.learning_rate, state.step, total)
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: -rate * u, updates))
        return JudgeState(params, stats, momentum, state.step + 1), loss

    def _predict_batch(self, variables, images, seen):
        # One program for both, because compiling another one takes longer than a few features.
        logits, inside = self._model.apply(
            variables, to_float(images), train=False, mutable=["intermediates"]
        )
        labels = jnp.argmax(mask_unseen(logits, seen), axis=-1).astype(jnp.int32)
        return labels, inside["intermediates"]["features"][0]


_programs = kept(_Programs)


class Judge:
    """Trains and applies the judges of one run.

    num_classes: capacity of the head; labels are 0..num_classes-1, seen or not.
    image_shape: (H, W, C) of every image.
    seed:        all random numbers depend on it, the name given to `train` and the step.
    shard:       places a batch on devices: "images" are the rows of this process, "labels" are all
                 labels [judge.batch_size]; None = the default device. Parameters are replicated
                 over the mesh of the batch.
    rows:        the rows of a batch that this process reads.
    """

    def __init__(
        self,
        judge: settings.Judge,
        num_classes: int,
        image_shape: tuple[int, int, int],
        seed: int,
        shard: Callable[[Any], Any] | None = None,
        rows: slice = slice(None),
    ):
        self.settings = judge
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self.seed = seed
        self._shard = shard or (lambda batch: jax.tree.map(jnp.asarray, batch))
        self._rows = rows
        self._everywhere = _replicated(self._shard(self._blank_batch()))
        # No program depends on how long and on how many images a judge trains.
        same = dataclasses.replace(judge, epochs=1.0, images_per_class=0)
        programs = _programs(same, num_classes, self.image_shape, self._everywhere)
        self._init, self._step, self._predict = programs.init, programs.step, programs.predict
        self._init_state = programs.init_state
        self._about = (judge.width, judge.stages, judge.batch_size, self.image_shape)

    def abstract_variables(self) -> dict:
        """Shapes and dtypes of the result of `train`, to restore it from a checkpoint."""
        state = jax.eval_shape(self._init_state, jax.random.key(0))
        return {"params": state.params, "batch_stats": state.batch_stats}

    def train(
        self,
        images: Selection,
        *,
        steps: int,
        seed_name: str,
        progress: Callable[[int, float], None] | None = None,
    ) -> dict:
        """Variables {"params", "batch_stats"} of a classifier trained from scratch.

        images:    uint8 [N, H, W, C] with their labels. A set smaller than a batch is repeated;
                   classes without an image are masked in training.
        steps:     optimiser steps, see `steps_for`.
        seed_name: names the random stream, e.g. "judge/task3/repeat0".
        progress:  called with (finished steps, loss) every few steps; None = no reports.

        Raises `ValueError` for labels or shapes that do not fit, `FloatingPointError` for a loss
        that is not finite. Equal arguments give bit-equal variables on CPU.
        """
        labels = images.labels
        self._check_labels(labels)
        if steps < 1:
            raise ValueError(f"steps={steps}: the judge needs at least 1 optimiser step")
        # A mask instead of a smaller head, so every task uses the same program.
        seen = np.bincount(labels, minlength=self.num_classes) > 0
        key = stream_key(self.seed, seed_name)
        # On the devices before the loop, so they are not sent again at every step.
        key, seen, total = jax.device_put((key, seen, np.int32(steps)), self._everywhere)
        # From scratch after every task: a judge that is trained further would prefer the newest
        # classes (F11).
        state = self._init(key)
        for done, batch in enumerate(self._batches(images, steps, seed_name), start=1):
            with waiting.first_call(self._step, "the training step of the judge", self._about):
                state, loss = self._step(state, self._shard(batch), seen, key, total)
            if done % REPORT_EVERY == 0 or done == steps:
                self._report(done, float(loss), progress)
        return {"params": state.params, "batch_stats": state.batch_stats}

    def predict(self, variables: dict, images: Selection, seen: np.ndarray) -> np.ndarray:
        """Labels int32 [N] with the largest logit among the `seen` [num_classes] classes.

        The label of an image does not depend on the other images or on their number.
        """
        seen = np.asarray(seen, bool)
        if seen.shape != (self.num_classes,) or not seen.any():
            raise ValueError(
                f"seen has shape {seen.shape} and {seen.sum()} classes: expected "
                f"[{self.num_classes}] with at least one True"
            )
        if len(images) == 0:
            return np.zeros((0,), np.int32)
        answers = [labels for labels, _ in self._answers(variables, images, seen)]
        return np.concatenate([np.asarray(part) for part in answers])[: len(images)]

    def features(self, variables: dict, images: Selection) -> Iterator[np.ndarray]:
        """Features float32 [n, d] before the head, batch after batch, in the order of `images`.

        Those of an image depend on its place in its batch, by rounding only: the same images in the
        same order give the same bits.
        """
        left = len(images)
        for _, features in self._answers(variables, images, np.ones(self.num_classes, bool)):
            yield np.asarray(features)[:left]
            left -= len(features)

    def _answers(self, variables: dict, images: Selection, seen: np.ndarray) -> Iterator[tuple]:
        """Labels [B] and features [B, d] of full batches, on the devices."""
        seen = jax.device_put(seen, self._everywhere)
        size, count = self.settings.batch_size, len(images)
        for start in range(0, count, size):
            # Copies of the last image fill the last batch; callers leave them out.
            indices = np.minimum(np.arange(start, start + size), count - 1)
            batch = self._shard({"images": self._fetch(images, indices)})
            with waiting.first_call(self._predict, "the answers of the judge", self._about):
                answers = self._predict(variables, batch["images"], seen)
            yield answers

    def _batches(self, images: Selection, steps: int, name: str) -> Iterator[dict]:
        order, size = recipe.batch_order(self.seed, name, len(images)), self.settings.batch_size

        def fetch(step: int) -> dict:
            indices = order.between(step * size, (step + 1) * size)
            return {"images": self._fetch(images, indices), "labels": images.labels[indices]}

        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        return iter(grain.MapDataset.range(steps).map(fetch).to_iter_dataset(options))

    def _fetch(self, images: Selection, indices: np.ndarray) -> np.ndarray:
        """The rows of the batch `indices` that this process reads."""
        # Images are large, so a process reads only its own rows; it has all labels, because they
        # are small.
        batch = np.asarray(images[indices[self._rows]])
        if batch.shape[1:] != self.image_shape or batch.dtype != np.uint8:
            raise ValueError(
                f"judge images are {batch.dtype} {batch.shape[1:]}: expected uint8 "
                f"{self.image_shape}, as data.image_size and data.channels say"
            )
        return batch

    def _check_labels(self, labels: np.ndarray) -> None:
        if len(labels) == 0:
            raise ValueError("judge got no images: at least one is needed")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"judge labels are in {labels.min()}..{labels.max()}: accepted are "
                f"0..{self.num_classes - 1}; raise stream.capacity for more classes"
            )

    def _report(self, done: int, loss: float, progress) -> None:
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"judge loss is {loss} at step {done}: lower judge.learning_rate "
                f"(now {self.settings.learning_rate})"
            )
        if progress is not None:
            progress(done, loss)

    def _blank_batch(self) -> dict:
        size = self.settings.batch_size
        blank = np.zeros((size, *self.image_shape), np.uint8)
        return {"images": blank[self._rows]}


def steps_for(judge: settings.Judge, plain_count: int) -> int:
    """Optimiser steps of one judge: epochs * plain_count / batch size, at least 1.

    plain_count: images before oversampling, which adds images but no steps.
    """
    return max(1, round(judge.epochs * plain_count / judge.batch_size))


def fidelity(
    judge: Judge,
    variables: dict,
    samples: Selection,
    tasks: Sequence[Collection[int]],
    seen: np.ndarray | None = None,
) -> dict:
    """How often a judge trained on *real* images recognises the class of generated images.

    `tasks` lists the labels of each task. `seen` [num_classes] marks the classes that the judge may
    answer; None = the classes of the samples.

    Returns {"per_class": {label: accuracy}, "per_task": [accuracy or None]}. The accuracy of a task
    weights its images equally; it is None if there is no image.
    """
    labels = samples.labels
    if seen is None:
        seen = np.bincount(labels, minlength=judge.num_classes) > 0
    correct = judge.predict(variables, samples, seen) == labels
    per_class = {int(label): float(correct[labels == label].mean()) for label in np.unique(labels)}
    per_task = []
    for task in tasks:
        inside = np.isin(labels, sorted(task))
        per_task.append(float(correct[inside].mean()) if inside.any() else None)
    return {"per_class": per_class, "per_task": per_task}


def _replicated(batch: dict) -> jax.sharding.Sharding:
    """The sharding of the parameters, from the sharding of a batch."""
    sharding = batch["images"].sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return sharding
