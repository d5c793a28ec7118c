"""What all classifiers on a pre-trained ViT share: trunk, heads, loss, class means (M8).

The linear head has a row for every class that there will be and is trained with the cross-entropy
over the classes of the current task only (local loss), so rows of old classes get no gradient. It
is tested by the largest score over all learned classes. Beside it a class-mean head compares
features with the mean feature of each class's training images.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flcl import settings
from flcl.data import loader
from flcl.data.stream import Task, TaskStream
from flcl.evaluate.recipe import mask_unseen
from flcl.methods import base, optimisation
from flcl.models import pretrained, vit
from flcl.ops import accumulate, pixels


class ViTClassifier(base.Classifier):
    """A trunk with two heads. Subclasses say what trains and how the trunk is adapted.

    Memory: `trunk`, `head` (kernel [d, capacity], bias), `means` (sum [capacity, d], count of the
    images of each class), `seen` (bool [capacity]), and what a subclass adds.
    """

    def __init__(self, run: settings.ClassifierRun, stream: TaskStream):
        super().__init__(run, stream)
        self.size = run.data.image_size
        self.width = settings.vit_sizes(run.model.variant).width
        self.network = vit.VisionTransformer(run.model, self.size)
        self._file: pretrained.Pretrained | None = None

    # What subclasses change.

    def parts(self, phase: int) -> dict[str, optimisation.Part]:
        """How each part of `trainable` trains: by default the head alone."""
        del phase
        return {"head": optimisation.Part(self.run.train.head_learning_rate)}

    def model(self, phase: int, trainable, frozen, key, progress) -> tuple[dict, jax.Array]:
        """Arguments of `encode` while training, and what is added to the loss."""
        del phase, trainable, key, progress
        return {"trunk": frozen["trunk"]}, jnp.zeros(())

    def inference(self, memory) -> dict:
        """Arguments of `encode` after training; they know nothing of tasks."""
        return {"trunk": memory["trunk"]}

    # The contract.

    def resolved(self):
        """The settings with the normalisation and the hash of the weights file."""
        model = self.run.model
        found = {"normalize": "half"}  # what random weights expect is for us to say
        if model.weights != "random":
            self._file = pretrained.load(model, self.size)
            found = {"normalize": self._file.normalize, "sha256": self._file.sha256}
        if model.normalize != "weights":
            found["normalize"] = model.normalize
        # What the memory is made from must be what is written down.
        self.run = dataclasses.replace(self.run, model=dataclasses.replace(model, **found))
        return self.run

    @property
    def weights(self) -> dict:
        model = self.run.model
        found = {"source": model.weights, "sha256": model.sha256, "normalize": model.normalize}
        if self._file is not None:
            found |= {"layout": self._file.layout, "ignored": list(self._file.ignored)}
        return found

    def steps(self, task: Task, images: int) -> int:
        del task
        train = self.run.train
        return max(1, round(train.epochs * images / train.batch_size))

    def ema_decay(self, phase: int) -> float:
        del phase
        return 0.0

    def remedy(self, phase: int) -> str:
        del phase
        return "lower train.learning_rate or train.head_learning_rate"

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        return optimisation.by_progress(self.run.train, self.parts(phase))

    def batches(self, task: Task, pools, shard):
        batch_size, seed = self.run.train.batch_size, self.run.seed
        return loader.shuffled_batches(
            pools, batch_size=batch_size, seed=seed, task=task.index, shard=shard
        )

    def init(self, key):
        capacity, bound = self.stream.capacity, self.width**-0.5
        key_trunk, key_head = jax.random.split(key)
        kernel = jax.random.uniform(key_head, (self.width, capacity), minval=-bound, maxval=bound)
        return {
            "trunk": self._stored(vit.init_parameters(self.run.model, self.size, key_trunk)),
            "head": {"kernel": kernel, "bias": jnp.zeros(capacity)},
            "means": {"sum": jnp.zeros((capacity, self.width)), "count": jnp.zeros(capacity)},
            "seen": jnp.zeros(capacity, bool),
        }

    def load(self, memory):
        if self._file is None:
            return memory
        trunk = self._stored(self._file.params)
        self._file = self._file._replace(params={})  # half a gigabyte that no one needs again
        return {**memory, "trunk": trunk}

    def begin(self, memory, task: Task, key):
        del key
        classes = np.zeros(self.stream.capacity, bool)
        classes[list(task.labels)] = True
        frozen = {"trunk": memory["trunk"], "labels": jnp.asarray(classes)}
        return {"head": memory["head"]}, frozen

    def loss(self, phase, trainable, frozen, batch, key, progress):
        key_crop, key_flip, key_model = jax.random.split(key, 3)
        images = self._normalised(batch["images"])
        if self.run.train.min_crop < 1:
            images = pixels.random_resized_crop(key_crop, images, self.run.train.min_crop)
        if self.run.data.flip:
            images = pixels.random_flip(key_flip, images)

        def mean(trainable, fixed, data):
            frozen, key, progress = fixed
            model, extra = self.model(phase, trainable, frozen, key, progress)
            return self._losses(model, trainable, frozen, *data).mean() + extra

        fixed = (frozen, key_model, progress)
        return accumulate.mean_over_devices(mean, trainable, fixed, (images, batch["labels"]))

    def task_losses(self, phase, trainable, frozen, images, labels):
        # Measured as after the selection of a rank: nothing is drawn.
        model, _ = self.model(phase, trainable, frozen, jax.random.key(0), jnp.ones(()))
        return self._losses(model, trainable, frozen, self._normalised(images), labels)

    def end(self, memory, task: Task, trainable):
        seen = memory["seen"].at[np.asarray(task.labels)].set(True)
        return {**memory, "head": trainable.get("head", memory["head"]), "seen": seen}

    def calibrate(self, memory, task: Task, features, labels):
        """Adds a task's training images to the sums and counts of their classes."""
        del task
        total = np.asarray(memory["means"]["sum"]).copy()
        count = np.asarray(memory["means"]["count"]).copy()
        np.add.at(total, labels, features)
        np.add.at(count, labels, 1.0)
        return {**memory, "means": {"sum": jnp.asarray(total), "count": jnp.asarray(count)}}

    def added(self, memory, task: Task):
        rows = np.asarray(task.labels)
        added = {
            "head": {
                "kernel": memory["head"]["kernel"][:, rows],
                "bias": memory["head"]["bias"][rows],
            },
            "means": {name: value[rows] for name, value in memory["means"].items()},
        }
        return {**added, "trunk": memory["trunk"]} if task.index == 1 else added

    def restore(self, memory, task: Task, added):
        rows = np.asarray(task.labels)
        head, means = memory["head"], memory["means"]
        return {
            **memory,
            "trunk": added.get("trunk", memory["trunk"]),
            "head": {
                "kernel": head["kernel"].at[:, rows].set(added["head"]["kernel"]),
                "bias": head["bias"].at[rows].set(added["head"]["bias"]),
            },
            "means": {name: means[name].at[rows].set(added["means"][name]) for name in means},
            "seen": memory["seen"].at[rows].set(True),
        }

    def features(self, memory, images):
        return self.encode(self._normalised(images), **self.inference(memory))

    def scores(self, memory, features):
        # In full precision also where products are not by default: near ties decide an answer.
        linear = jnp.matmul(features, memory["head"]["kernel"], precision="highest")
        linear = linear + memory["head"]["bias"][None]
        means = memory["means"]["sum"] / jnp.maximum(memory["means"]["count"], 1.0)[:, None]
        similarity = jnp.matmul(_unit(features), _unit(means).T, precision="highest")
        found = {"linear": linear, "class_mean": similarity}
        return {name: mask_unseen(value, memory["seen"]) for name, value in found.items()}

    def encode(self, images, trunk, adapters=None, prompt=None) -> jax.Array:
        """Features [B, d] of normalised images [B, H, W, 3]."""
        variables = (
            {"params": trunk} if adapters is None else {"params": trunk, "adapter": adapters}
        )
        return self.network.apply(variables, images, prompt)

    def describe(self) -> dict:
        key = jax.random.key(0)
        memory = jax.eval_shape(self.init, key)
        tasks = self.stream.tasks
        trained = [
            _size(jax.eval_shape(lambda m, k, t=task: self.begin(m, t, k)[0], memory, key))
            if self.steps(task, 1)
            else 0
            for task in tasks
        ]
        stored = [jax.eval_shape(lambda m, t=task: self.added(m, t), memory) for task in tasks]
        return {
            "trunk_parameters": vit.parameter_count(self.run.model, self.size),
            "shared_parameters": self.shared_parameters(),
            "parameters_per_task": self.parameters_per_task(),
            "head_parameters": _size(memory["head"]),
            "trained_parameters": trained,
            "bytes_per_task": [
                sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
                for tree in stored
            ],
        }

    def shared_parameters(self) -> int:
        """Parameters beside trunk and head that all tasks have in common."""
        return 0

    def parameters_per_task(self) -> int:
        """Parameters beside trunk and head that a later task trains and has for itself."""
        return 0

    def _losses(self, model: dict, trainable, frozen, images, labels):
        features = self.encode(images, **model)
        head = trainable["head"]
        logits = features @ head["kernel"] + head["bias"][None]
        logits = mask_unseen(logits, frozen["labels"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def _normalised(self, images):
        mean, std = pretrained.normalization(self.run.model.normalize)
        return pixels.normalize(images, mean, std)

    def _stored(self, trunk):
        """The trunk in the precision that it is stored in."""
        return jax.tree.map(lambda v: jnp.asarray(v, self.run.model.trunk_dtype), trunk)


def _unit(vectors):
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
