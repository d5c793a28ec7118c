"""FunLoRA: a generator with a few factors per class and a trunk that is frozen after task 1.

Task 1 trains the trunk together with the factors of its classes. Every later task trains only the
factors of its own classes on the frozen trunk, so no old class can change (F5).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange

from flcl import settings
from flcl.adapters import artifact, functional
from flcl.adapters.layers import select_layers
from flcl.adapters.modulate import resolved_strategy
from flcl.data.sequence.stream import Task, TaskStream
from flcl.flow import guidance, straight
from flcl.flow.path import Points, draw_points, flow_loss
from flcl.methods import base, optimisation
from flcl.metrics.ranks import effective_rank
from flcl.models.convolutions import abstract_parameters, convolutions, init_parameters
from flcl.models.unet import UNet
from flcl.ops import accumulate
from flcl.ops.pixels import random_flip, to_float
from flcl.settings.generator.factors import FOUND_LAYERS

# Effective ranks are logged for a few layers and classes only, because each needs a singular value
# decomposition.
_RANKED_LAYERS = 5


class FunLoRA(base.Generator):
    """Memory: `trunk` (U-Net parameters) and `bank` (factors of every class, fixed capacity)."""

    name = "funlora"
    old_classes_fixed = True

    def __init__(self, run: settings.FunLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        self.size = run.data.image_size
        all_layers = convolutions(self._model(0.0), self.size)
        chosen = select_layers(run.adapter.layers, [conv.name for conv in all_layers])
        self.adapted = tuple(all_layers[i] for i in chosen)
        # (Cin, Cout) of a kernel [k, k, Cin, Cout].
        self.layers = {conv.name: conv.shape[2:] for conv in self.adapted}
        self.straightens = run.straighten.steps > 0
        self.takes_turns = resolved_strategy(run.adapter.strategy) == "map"

    @classmethod
    def resolve(cls, run):
        """Reads the trunk of `model.weights`, and replaces `top:K@WORKDIR` by a list of layers.

        Because that workdir may be deleted. All `FOUND_LAYERS` are replaced.
        """
        if run.adapter.layers.startswith(FOUND_LAYERS):
            names = [conv.name for conv in convolutions(_model(run, 0.0), run.data.image_size)]
            layers = ",".join(map(str, select_layers(run.adapter.layers, names)))
            run = dataclasses.replace(run, adapter=dataclasses.replace(run.adapter, layers=layers))
        if not run.model.weights:
            return base.Resolved(run)
        shapes = abstract_parameters(_model(run, 0.0), run.data.image_size)
        file = artifact.trunk_for(run.model, run.data, shapes)
        model = dataclasses.replace(run.model, sha256=file.about.sha256)
        note = f"trunk {file.about.sha256[:12]} of {run.model.weights}, frozen from the first task"
        origin = {"weights": run.model.weights, "sha256": file.about.sha256}
        return base.Resolved(dataclasses.replace(run, model=model), file.parameters, origin, note)

    def phase(self, task: Task) -> int:
        # A trunk from a file is frozen from the first task (F13).
        return 2 if self.run.model.weights else super().phase(task)

    def load(self, memory, weights):
        return memory if weights is None else {**memory, "trunk": weights}

    def init(self, key):
        key_trunk, key_bank = jax.random.split(key)
        # Only the structure of this row is used.
        rows = self._fresh(key_bank, np.zeros(1, np.int32))
        return {
            "trunk": init_parameters(self._model(0.0), self.size, key_trunk),
            "bank": functional.empty_bank(rows, self.stream.capacity),
        }

    def phase_settings(self, phase):
        if phase != base.STRAIGHTENING:
            return super().phase_settings(phase)
        keys = self.run.straighten
        # Batches, average and learning rate are those of phase 2, which trains the same arrays.
        phase2 = self.run.phase2
        changed = {"steps": keys.steps, "learning_rate": keys.learning_rate or phase2.learning_rate}
        return dataclasses.replace(phase2, warmup_steps=0, dropout=0.0, **changed)

    def remedy(self, phase):
        if phase != base.STRAIGHTENING:
            return super().remedy(phase)
        # The key may be 0, so the rate itself is named.
        return f"set straighten.learning_rate below {self.phase_settings(phase).learning_rate:g}"

    def abstract_batch(self, phase):
        batch = super().abstract_batch(phase)
        if phase == base.STRAIGHTENING:
            *leading, height, width, channels = batch["images"].shape
            pairs = (*leading, 2, height, width, channels)
            batch["images"] = jax.ShapeDtypeStruct(pairs, np.float32)
        return batch

    def begin(self, memory, task: Task, key):
        first = self.phase(task) == 1
        labels = self._rows(task, len(task.labels) if first else self.stream.trained_rows(task))
        frozen = {"labels": jnp.asarray(labels)}
        if first:
            # An unused row, label -1, gets the factors of class 0. No batch has its label.
            fresh = self._fresh(key, np.maximum(labels, 0))
            return {"trunk": memory["trunk"], "factors": fresh}, frozen
        # F5: the whole trunk is frozen, also its norms. Only then do old classes keep their bits.
        frozen["trunk"] = memory["trunk"]
        return {"factors": self._start(memory, task, key, labels)}, frozen

    def straightening(self, memory, task: Task):
        # As many rows in every task, so all tasks share one program.
        labels = self._rows(task, self.stream.trained_rows(task))
        factors = functional.take(memory["bank"], np.maximum(labels, 0))
        return {"factors": factors}, {"labels": jnp.asarray(labels), "trunk": memory["trunk"]}

    @staticmethod
    def _rows(task: Task, count: int) -> np.ndarray:
        """The labels of a task in `count` rows; unused rows, -1, belong to no class.

        So tasks of unequal size share one compiled step.
        """
        labels = np.full(count, -1, np.int32)
        labels[: len(task.labels)] = task.labels
        return labels

    def loss(self, phase, trainable, frozen, batch, key, progress):
        """Flow-matching loss of a batch; gradients are summed per device and, on CPU, per class."""
        del progress
        key_flip, key_flow, key_dropout = jax.random.split(key, 3)
        points = self._points(phase, batch, key_flip, key_flow)
        # The position of each group's class in the rows of this task.
        position = jnp.argmax(frozen["labels"][None] == batch["labels"][:, None], axis=1)
        rows = functional.take(trainable["factors"], position)
        fixed = {"trunk": frozen.get("trunk"), "dropout": key_dropout}
        # By default there is no dropout in phase 2 (F5).
        model, family = self._model(self.phase_settings(phase).dropout), self.run.adapter.family

        def loss(trunk, rows, fixed, data):
            """The loss of images with class factors `rows` and positions `numbers` [B]."""
            points, numbers = data
            # After phase 1 the trunk is no argument with a gradient, so none is computed for it.
            trunk = trunk if phase == 1 else fixed["trunk"]
            modulation = functional.modulation_collection(rows, family)
            variables = {"params": trunk, "modulation": modulation}
            rngs = {"dropout": fixed["dropout"]}
            return flow_loss(
                lambda x, t: model.apply(variables, x, t, train=numbers, rngs=rngs), points
            )

        return accumulate.mean_loss(
            loss,
            shared=trainable.get("trunk", ()),
            rows=rows,
            fixed=fixed,
            # Dropout depends on these numbers, so it does not matter how the batch is divided.
            data=(points, jnp.arange(len(points.x))),
            groups=len(batch["labels"]) if rows else 1,
            pixels=self.size**2 if self.takes_turns else None,
        )

    def _points(self, phase: int, batch, key_flip, key_flow) -> Points:
        # n first: the axis that is divided over the devices stays the leading one.
        images = rearrange(batch["images"], "n g ... -> (n g) ...")
        if phase == base.STRAIGHTENING:
            return straight.draw_points(key_flow, images)
        images = to_float(images)
        if self.run.data.flip:
            images = random_flip(key_flip, images)
        return draw_points(key_flow, images, len(batch["labels"]), self.run.flow)

    def end(self, memory, task: Task, trainable):
        kept = functional.take(trainable["factors"], np.arange(len(task.labels)))  # no unused rows
        trunk = trainable.get("trunk", memory["trunk"])
        return {"trunk": trunk, "bank": functional.put(memory["bank"], _array(task.labels), kept)}

    def added(self, memory, task: Task):
        # One array instead of hundreds. The trunk is stored once, with task 1, because it never
        # changes again.
        rows = functional.pack(functional.take(memory["bank"], _array(task.labels)))
        return {"trunk": memory["trunk"], "rows": rows} if task.index == 1 else {"rows": rows}

    def restore(self, memory, task: Task, added):
        rows = functional.unpack(added["rows"], memory["bank"])
        bank = functional.put(memory["bank"], _array(task.labels), rows)
        return {"trunk": added.get("trunk", memory["trunk"]), "bank": bank}

    def class_parameters(self, memory, label):
        return {"trunk": memory["trunk"], "factors": functional.take(memory["bank"], label)}

    def velocity(self, class_parameters):
        trunk, factors = class_parameters["trunk"], class_parameters["factors"]
        # W_y = W0 * F_y, outside the solver: the network that is sampled has no adapter.
        merged = functional.merge(trunk, factors, self.run.adapter.family)
        model = self._model(0.0)
        return lambda x, t: model.apply({"params": merged}, x, t)

    def sampled(self, class_parameters, sample: settings.GuidedSample):
        velocity = self.velocity(class_parameters)
        if sample.guidance == 1.0:  # the same program as without this key
            return velocity
        trunk, model = class_parameters["trunk"], self._model(0.0)
        # F = 1 in every layer: the field that all classes have in common.
        return guidance.classifier_free(
            lambda x, t: model.apply({"params": trunk}, x, t), velocity, sample.guidance
        )

    def trunk_and_factors(self, memory, label):
        return memory["trunk"], functional.take(memory["bank"], label)

    def with_factors(self, memory, label, factors):
        rows = jax.tree.map(lambda v: jnp.asarray(v)[None], factors)
        return {**memory, "bank": functional.put(memory["bank"], _array([label]), rows)}

    def forget(self, memory, label):
        _, factors = self.trunk_and_factors(memory, label)
        return self.with_factors(memory, label, jax.tree.map(jnp.zeros_like, factors))

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        train = self.phase_settings(phase)
        if phase != 1:
            return optimisation.adam(train)
        # Public code trains such a trunk with 2e-4; at that rate the factors hardly move in a
        # short run (F8).
        rates = {"trunk": train.learning_rate, "factors": self.run.adapter.learning_rate}
        return optimisation.adam_by_part(train, rates)

    def describe(self) -> dict:
        rows = jax.eval_shape(
            lambda key: self._fresh(key, np.zeros(1, np.int32)), jax.random.key(0)
        )
        per_layer = {
            name: sum(leaf.size for leaf in jax.tree.leaves(factors))
            for name, factors in rows.items()
        }
        per_class = sum(per_layer.values())
        trunk = sum(
            math.prod(leaf.shape)
            for leaf in jax.tree.leaves(abstract_parameters(self._model(0.0), self.size))
        )
        return {
            "trunk_parameters": trunk,
            "parameters_per_class": per_class,
            "adapted_convolutions": [
                {**conv._asdict(), "shape": list(conv.shape), "parameters": per_layer[conv.name]}
                for conv in self.adapted
            ],
            "bytes_per_task": [
                # Four bytes per float32. A later task adds only its factors.
                4 * (per_class * len(task.labels) + (trunk if task.index == 1 else 0))
                for task in self.stream.tasks
            ],
        }

    def watched(self, trainable, task: Task):
        """Effective ranks of F in each convolution, as a mean over the first classes of a task.

        `rank/INDEX` of the convolutions, and the mean and the largest rank of all of them.
        """
        count = min(self.run.adapter.record_ranks, len(task.labels))
        if not count:
            return {}
        rows = functional.take(trainable["factors"], np.arange(count))
        ranks = jax.device_get(functional.effective_ranks(rows, self.run.adapter.family))
        layers = {f"rank/{c.index:02d}": float(ranks[c.name].mean()) for c in self.adapted}
        every = np.stack(list(ranks.values()))
        return {"mean_rank": float(every.mean()), "max_rank": float(every.max()), **layers}

    def diagnose(self, memory, task: Task) -> dict:
        """Importance scores after task 1, and the effective rank of F for the first class."""
        family = self.run.adapter.family
        rows = functional.take(memory["bank"], _array(task.labels))
        first = {name: jax.tree.map(lambda v: v[0], rows[name]) for name in self._ranked()}
        ranks = {name: functional.lift_layer(f, family) for name, f in first.items()}
        figures = {"effective_rank": {n: float(effective_rank(m)) for n, m in ranks.items()}}
        # F12: the score is that of the classes of task 1, which train together with the trunk.
        if task.index == 1:
            scores = functional.importance(rows, family)
            figures["importance"] = [
                {"index": c.index, "name": c.name, "score": score, "rms_deviation": deviation}
                for c in self.adapted
                for score, deviation in [scores[c.name]]
            ]
        return figures

    def _ranked(self) -> list[str]:
        """Names of adapted convolutions with a large F, evenly spaced from first to last."""
        # In a layer with few channels the rank is limited by the channels, not by the family.
        widest = [c for c in self.adapted if min(c.shape[2:]) >= self.run.model.width]
        picks = np.linspace(0, len(widest) - 1, min(_RANKED_LAYERS, len(widest))).round()
        return [widest[int(i)].name for i in picks]

    def _model(self, dropout: float) -> UNet:
        return _model(self.run, dropout)

    def _fresh(self, key, labels):
        adapter = self.run.adapter
        return functional.init_rows(
            key, self.layers, adapter.family, labels, adapter.functions, adapter.sigma
        )

    def _start(self, memory, task: Task, key, labels):
        how = self.run.adapter.warm_start
        # With `first`, a task is a function of the first one alone (ours).
        before = self.stream.tasks[: 1 if how == "first" else task.index - 1]
        before = before if task.index > 1 else ()
        old = [label for t in before for label in self.stream.left(t.labels)]
        if how == "none" or not old:  # all of them may have been removed
            return self._fresh(key, np.maximum(labels, 0))
        how = "mean" if how == "mean" else "class"
        # Repeated up to a fixed length, so all tasks share one program; the first `known` entries
        # count.
        learned = np.resize(_array(old), self.stream.capacity)
        return functional.warm_rows(
            key, memory["bank"], learned, np.int32(len(old)), len(labels), how
        )


def _model(run: settings.FunLoRARun, dropout: float) -> UNet:
    return UNet(run.model, run.data.channels, dropout, run.adapter.strategy)


def _array(labels) -> np.ndarray:
    return np.asarray(labels, np.int32)
