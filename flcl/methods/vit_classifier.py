"""The common part of all classifiers on a pre-trained ViT: trunk, heads, loss, statistics (M8).

The linear head is trained with a loss over the classes of the current task only (`train.loss`), so
the weights of old classes get no gradient. A task of one class is compared with the learned
classes, whose weights are constants then. With `train.loss=gaussian` the loss compares all classes
so far: old ones are features drawn from their statistics. The answer of a head is the largest score
over all learned classes. Heads with statistics get them from the training images at the end of a
task.
"""

import dataclasses
import zlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flcl import settings
from flcl.data import loader
from flcl.data.sequence.stream import Task, TaskStream
from flcl.heads.base import Batch, Move, mask_unseen
from flcl.heads.calibration import Calibration
from flcl.heads.linear import Trained
from flcl.methods import base, losses, optimisation
from flcl.models import vit
from flcl.models.pretrained import load as pretrained
from flcl.ops import accumulate, pixels


class ViTClassifier(base.Classifier):
    """A trunk with heads. Subclasses define what trains and how the trunk is adapted.

    Memory: `trunk`, the state of each statistic under its key (`head`, `means`, ...), `seen` (bool
    [capacity]), `held_out` if images are held out, and the entries of the subclass.

    Attributes:
      trains_head: whether a linear head trains.
      draws: the covariance of the features that a subclass draws, see `heads.drawn`; empty = none.
    """

    trains_head: ClassVar[bool] = True
    draws = ""

    def __init__(self, run: settings.ClassifierRun, stream: TaskStream):
        super().__init__(run, stream)
        self.size = run.data.image_size
        self.width = run.model.sizes.width
        self.network = vit.VisionTransformer(run.model, self.size, run.kept_blocks)
        domains = stream.scenario == "dil" and not stream.joint
        self.head = run.head
        # Only a loss over all classes trains the columns of old ones.
        self.replays = self.trains_head and run.train.loss == "gaussian"
        trained = Trained(run.model.feature_width, stream.capacity, whole=self.replays)
        self.calibration = Calibration(
            run,
            stream.capacity,
            stream.task_slots if domains else None,
            trained if self.trains_head else None,
            self.draws or ("shared" if self.replays else ""),
        )
        self.heads, self.drawn = self.calibration.heads, self.calibration.drawn
        self.diagnosed = self.calibration.solved_heads if self.calibration.keeps_stale else ()

    # Methods that subclasses override.

    def parts(self, phase: int) -> dict[str, optimisation.Part]:
        """How each part of `trainable` trains: by default only the head."""
        del phase
        return {"head": optimisation.Part(self.run.train.head_learning_rate)}

    def model(self, phase: int, trainable, frozen, key, progress) -> tuple[dict, jax.Array]:
        """Arguments of `encode` in training, and a term that is added to the loss."""
        del phase, trainable, key, progress
        return {"trunk": frozen["trunk"]}, jnp.zeros(())

    def inference(self, memory) -> dict:
        """Arguments of `encode` after training; they do not depend on a task id."""
        return {"trunk": memory["trunk"]}

    @property
    def _moves(self) -> bool:
        """Whether training changes the features."""
        return isinstance(self.run, settings.MovingRun)

    # The contract.

    @classmethod
    def resolve(cls, run):
        """Reads the weights file: its sizes, normalisation and hash become part of the settings."""
        if run.model.weights == "random":
            return base.Resolved(_with_model(run, run.model.of_random_weights()))
        file = pretrained.load(run.model, run.data.image_size)
        # The hash in the settings lets a continued run detect that the file is another one.
        origin = {"layout": file.layout, "ignored": list(file.ignored)}
        return base.Resolved(_with_model(run, file.model), file.params, origin, file.note)

    @classmethod
    def sized(cls, run):
        """Takes the sizes from the weights file if it is here; otherwise they must be set."""
        model = run.model
        if model.weights.startswith("hub:") and model.has_sizes:
            return run  # nothing is downloaded for a table of sizes
        try:
            return _with_model(run, pretrained.sizes(model, run.data.image_size))
        except (ValueError, OSError) as error:
            if model.has_sizes:
                return run
            raise ValueError(f"{error}; or set model.variant, such as B/16") from error

    def check(self):
        first = self.stream.tasks[0]
        if len(first.labels) == 1 and self.steps(first, 1):
            raise ValueError(
                f"stream.tasks={self.run.stream.tasks!r}: the first task has one class, and "
                f"{self.name} learns by comparing classes; give the first task two classes or "
                "more, or use the method frozen, which only stores statistics of each class"
            )

    def steps(self, task: Task, images: int) -> int:
        train, epochs = self.run.train, self.run.train.epochs
        # Not in the joint run: it compares equal numbers of epochs.
        if task.index == 1 and not self.stream.joint and train.first_epochs:
            epochs = train.first_epochs
        return max(1, round(epochs * images / train.batch_size))

    def ema_decay(self, phase: int) -> float:
        del phase
        return 0.0

    def remedy(self, phase: int) -> str:
        del phase
        return "lower train.learning_rate or train.head_learning_rate"

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        return optimisation.by_progress(self.run.train, self.parts(phase))

    def batches(self, task: Task, images, shard):
        batch_size, seed = self.run.train.batch_size, self.run.seed
        return loader.shuffled_batches(
            images, batch_size=batch_size, seed=seed, task=task.index, shard=shard
        )

    def init(self, key):
        key_trunk, key_head = jax.random.split(key)
        return {
            "trunk": self._stored(vit.init_parameters(self.run.model, self.size, key_trunk)),
            **self.calibration.init(key_head),
            "seen": jnp.zeros(self.stream.capacity, bool),
        }

    def load(self, memory, weights):
        source = self.run.model.weights
        if (weights is None) != (source == "random"):
            raise ValueError(
                f"model.weights={source!r}: resolve the settings before the memory is made"
            )
        return memory if weights is None else {**memory, "trunk": self._stored(weights)}

    def begin(self, memory, task: Task, key):
        del key
        every, compared = np.arange(self.stream.capacity), self.compared(task)
        if self.stream.removed and len(compared) < 2 and self.steps(task, 1):
            raise ValueError(
                f"task {task.index} has one class, and all earlier classes were removed: "
                f"{self.name} learns by comparing classes; give it two classes or more"
            )
        # The local loss compares only `labels`; only the columns of `columns` train (M8).
        masks = {
            "labels": jnp.asarray(np.isin(every, compared)),
            "columns": jnp.asarray(np.isin(every, self.stream.left(task.labels))),
        }
        trainable = {"head": memory["head"]} if self.trains_head else {}
        frozen = {"trunk": memory["trunk"], **masks}
        if self.replays and task.index > 1 and self._old(task):
            frozen["columns"] = frozen["labels"]
            frozen["drawn"] = self.drawn.solve(memory)
            # Every class so far has the same weight (ours). With domains a class has a Gaussian,
            # and a weight, for each of them.
            old = frozen["drawn"]["known"].sum()
            new = len(self.stream.left(task.labels))
            frozen["share"] = new / (new + old)
        return trainable, frozen

    def _old(self, task: Task) -> bool:
        """Whether a class of an earlier task is still there."""
        return any(self.stream.left(each.labels) for each in self.stream.tasks[: task.index - 1])

    def compared(self, task):
        return self.labels_so_far(task) if self.replays else super().compared(task)

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
            value = self.mean_loss(phase, model, trainable, frozen, *data, progress)
            return frozen.get("share", 1.0) * value + extra

        # One exchange of gradients per step: see `mean_over_devices`.
        fixed = (frozen, key_model, progress)
        data = (images, batch["labels"])
        value = accumulate.mean_over_devices(mean, trainable, fixed, data)
        if "drawn" not in frozen:
            return value
        return value + (1 - frozen["share"]) * self._drawn_loss(trainable, frozen, key)

    def mean_loss(self, phase, model, trainable, frozen, images, labels, progress):
        """The mean loss of normalised images [B, H, W, 3] of one device, a scalar."""
        del phase, progress
        return self._losses(self.encode(images, **model), trainable, frozen, labels).mean()

    def task_losses(self, phase, trainable, frozen, images, labels):
        # progress = 1: the selection of a rank is over, so nothing is random.
        model, _ = self.model(phase, trainable, frozen, jax.random.key(0), jnp.ones(()))
        features = self.encode(self._normalised(images), **model)
        return self._losses(features, trainable, frozen, labels)

    def end(self, memory, task: Task, trainable):
        seen = self._with_seen(memory, task)
        head = {"head": trainable["head"]} if self.trains_head else {}
        return {**memory, **head, "seen": seen}

    def corrects(self, task: Task) -> bool:
        # Nothing is stored before the first task, and frozen features do not move.
        return task.index > 1 and self._moves and self.run.fits_map

    def makes_anew(self, task: Task) -> bool:
        return task.index > 1 and self._moves and self.run.makes_anew

    def calibrate(self, memory, task: Task, features, labels, moved, score, old=None):
        move = None
        if moved is not None:
            drift = self.run.drift
            move = Move(moved.before, moved.after, drift.correction, drift.ridge)
        batch, old = Batch(features, labels), old and Batch(*old)
        return self.calibration.add(memory, task, batch, move, score, old)

    def uncorrected(self, memory):
        return self.calibration.uncorrected(memory)

    def recounted(self, memory, tasks):
        return self.calibration.recounted(memory, [(task, Batch(*each)) for task, each in tasks])

    def added(self, memory, task: Task):
        every = self.corrects(task) or self.makes_anew(task)
        taken = self.calibration.take(memory, task, everything=every)
        # The trunk is stored although it came from a file, because a run must open without that
        # file.
        return {**taken, "trunk": memory["trunk"]} if task.index == 1 else taken

    def restore(self, memory, task: Task, added):
        return {
            **memory,
            "trunk": added.get("trunk", memory["trunk"]),
            **self.calibration.put(memory, task, added),
            "seen": self._with_seen(memory, task),
        }

    def forget(self, memory, label):
        """Its column, its rows of every statistic, and its mark; the network stays as it is."""
        rows = self.calibration.forget(memory, label)
        return {**memory, **rows, "seen": memory["seen"].at[label].set(False)}

    def _with_seen(self, memory, task: Task):
        """`seen` with the classes of a task; one that was removed is never an answer."""
        labels = np.asarray(self.stream.left(task.labels), np.int32)
        return memory["seen"].at[labels].set(True)

    def inputs(self, count):
        if not self.kept_blocks:
            return super().inputs(count)
        shape = (count, *vit.kept_shape(self.run.model, self.size))
        return jax.ShapeDtypeStruct(shape, self.run.model.dtype)

    def lower(self, memory, images):
        variables = {"params": memory["trunk"]}
        return self.network.apply(variables, self._normalised(images), lower=True)

    def features(self, memory, images):
        return self.encode(self._normalised(images), **self.inference(memory))

    def solved(self, memory):
        return {"heads": self.calibration.solve(memory), "seen": memory["seen"]}

    def temperatures(self, memory):
        return self.calibration.temperatures(memory)

    def scores(self, solved, features):
        return {
            name: mask_unseen(head.scores(solved["heads"][name], features), solved["seen"])
            for name, head in self.heads.items()
        }

    def low_rank(self, memory):
        model = self.inference(memory)
        adapters = model.get("adapters") or {}
        if model.get("prompt") is not None:
            raise ValueError(
                f"prompt.tokens={self.run.prompt.tokens}: a prompt adds tokens to every image, and "
                "no low-rank update of weights does that; train with prompt.tokens=0"
            )
        if any(vit.BESIDE in sites for sites in adapters.values()):
            raise ValueError(
                f"method={self.name}: its bottleneck beside the MLP is not linear, so no low-rank "
                "update of weights has its effect"
            )
        if not adapters:
            what = "it changes all weights" if self._moves else "it leaves the weights as they are"
            raise ValueError(f"method={self.name}: {what}, so there is no low-rank update")
        return adapters

    def encode(self, images, trunk, adapters=None, prompt=None) -> jax.Array:
        """Features [B, d] of normalised images [B, H, W, 3], or of kept outputs [B, T, width]."""
        variables = (
            {"params": trunk} if adapters is None else {"params": trunk, "adapter": adapters}
        )
        return self.network.apply(variables, images, prompt)

    def describe(self) -> dict:
        key = jax.random.key(0)
        memory = jax.eval_shape(self.init, key)
        tasks = self.stream.tasks
        # From shapes only, so even a large trunk is not allocated.
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
            "head_parameters": _size(memory["head"]) if self.trains_head else 0,
            "statistics_bytes": self.calibration.bytes(),
            "trained_parameters": trained,
            "bytes_per_task": [base.bytes_of(tree) for tree in stored],
        }

    def shared_parameters(self) -> int:
        """Number of parameters, without trunk and head, that all tasks share."""
        return 0

    def parameters_per_task(self) -> int:
        """Number of parameters, without trunk and head, that each later task adds."""
        return 0

    def _losses(self, features, trainable, frozen, labels):
        """The loss [B] of each image by its features [B, d]."""
        # A column is stored with the task of its class, so no later task may change it.
        head = jax.tree.map(
            lambda v: jnp.where(frozen["columns"][None], v, jax.lax.stop_gradient(v)),
            {"kernel": trainable["head"]["kernel"], "bias": trainable["head"]["bias"][None]},
        )
        return self.cross_entropies(head, frozen["labels"], features, labels)

    def cross_entropies(self, head, compared, features, labels):
        """The loss of each image [B] over the classes of `compared` [capacity]."""
        train = self.run.train
        if train.loss == "cosine":
            return losses.cosine(head, compared, features, labels, train.scale, train.margin)
        return losses.local(head, compared, features, labels)

    def _drawn_loss(self, trainable, frozen, key):
        """The mean loss of as many features of old classes as a batch has images, a scalar."""
        key = jax.random.fold_in(key, zlib.crc32(b"drawn"))
        features, entries = self.drawn.draw(frozen["drawn"], key, self.run.train.batch_size)
        return self._losses(features, trainable, frozen, self.drawn.labels(entries)).mean()

    def _normalised(self, images):
        if images.ndim == 3:
            return images  # outputs that were kept in their place
        mean, std = pretrained.normalization(self.run.model.normalize)
        return pixels.normalize(images, mean, std)

    def _stored(self, trunk):
        """The trunk in its storage precision."""
        return jax.tree.map(lambda v: jnp.asarray(v, self.run.model.trunk_dtype), trunk)


def _with_model(run, model: settings.ViT):
    """The run with other settings of its model; the checks that wait for its sizes come here."""
    run = dataclasses.replace(run, model=model)
    run.check()
    return run


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
