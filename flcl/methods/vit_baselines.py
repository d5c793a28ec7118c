"""What a user would pick instead of FM-LoRA, on the same backbone, data, steps and heads.

The joint upper bound is no method of its own: it is FM-LoRA with `stream.joint`.
"""

import jax
import jax.numpy as jnp

from flcl import checks, settings
from flcl.adapters import factorized
from flcl.data.stream import Task, TaskStream
from flcl.methods import optimisation
from flcl.methods.vit_classifier import ViTClassifier
from flcl.models import vit


class LinearProbe(ViTClassifier):
    """The head alone on frozen features."""


class ClassMean(ViTClassifier):
    """No training: the nearest mean of frozen features (cosine similarity)."""

    head = "class_mean"

    def steps(self, task: Task, images: int) -> int:
        del task, images
        return 0


class Finetune(ViTClassifier):
    """Every parameter trains in every task."""

    def parts(self, phase):
        return super().parts(phase) | {"trunk": optimisation.Part(self.run.train.learning_rate)}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        return trainable | {"trunk": frozen.pop("trunk")}, frozen

    def model(self, phase, trainable, frozen, key, progress):
        del phase, frozen, key, progress
        return {"trunk": trainable["trunk"]}, jnp.zeros(())

    def end(self, memory, task: Task, trainable):
        return super().end(memory, task, trainable) | {"trunk": trainable["trunk"]}

    def added(self, memory, task: Task):
        return super().added(memory, task) | {"trunk": memory["trunk"]}


class LoRASequential(ViTClassifier):
    """One plain LoRA, trained on from task to task: dW = A B'. Memory: `lora`."""

    run: settings.LoRARun

    def __init__(self, run: settings.LoRARun, stream: TaskStream):
        super().__init__(run, stream)
        blocks = checks.vit_blocks(run.lora.blocks, settings.vit_sizes(run.model.variant).depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)

    def parts(self, phase):
        return super().parts(phase) | {"lora": optimisation.Part(self.run.train.learning_rate)}

    def init(self, key):
        key_base, key_lora = jax.random.split(key)
        return super().init(key_base) | {"lora": self._fresh(key_lora)}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        return trainable | {"lora": memory["lora"]}, frozen

    def model(self, phase, trainable, frozen, key, progress):
        del phase, key, progress
        adapters = self._plain(trainable["lora"])
        return {"trunk": frozen["trunk"], "adapters": adapters}, jnp.zeros(())

    def end(self, memory, task: Task, trainable):
        return super().end(memory, task, trainable) | {"lora": trainable["lora"]}

    def inference(self, memory):
        return {"trunk": memory["trunk"], "adapters": self._plain(memory["lora"])}

    def added(self, memory, task: Task):
        return super().added(memory, task) | {"lora": memory["lora"]}

    def restore(self, memory, task: Task, added):
        return super().restore(memory, task, added) | {"lora": added["lora"]}

    def shared_parameters(self):
        return self._factor_parameters()

    def _fresh(self, key):
        return factorized.init_bases(key, self.shapes, self.run.lora.rank)

    def _plain(self, lora):
        identity = jnp.eye(self.run.lora.rank)
        cores = factorized.map_sites(lambda _: identity, self.shapes)
        return factorized.collection(lora, cores, self.run.lora.scale)

    def _factor_parameters(self) -> int:
        shapes = [shape for sites in self.shapes.values() for shape in sites.values()]
        return self.run.lora.rank * sum(map(sum, shapes))


class SDLoRA(LoRASequential):
    """One LoRA per task, direction and magnitude decoupled (Wu et al., ICLR 2025).

    dW = sum_k alpha_k A_k B_k' / (|A_k| |B_k|) + A_t B_t': earlier directions are frozen, their
    magnitudes train on. A finished task starts with the magnitude that it ended with (ours).
    Memory: `directions` (a [T, in, r], b [T, out, r] per map) and `magnitudes` [T] per map, zero
    for tasks to come; it grows with the number of tasks.
    """

    def init(self, key):
        memory = super().init(key)
        del memory["lora"]
        tasks = len(self.stream.tasks)
        fresh = self._fresh(key)
        return memory | {
            "directions": jax.tree.map(lambda v: jnp.zeros((tasks, *v.shape)), fresh),
            "magnitudes": factorized.map_sites(lambda _: jnp.zeros(tasks), self.shapes),
        }

    def parts(self, phase):
        own = optimisation.Part(self.run.train.learning_rate)
        return super().parts(phase) | ({"magnitudes": own} if phase == 2 else {})

    def begin(self, memory, task: Task, key):
        trainable, frozen = ViTClassifier.begin(self, memory, task, key)
        trainable["lora"] = self._fresh(key)
        if task.index > 1:
            trainable["magnitudes"] = memory["magnitudes"]
            frozen["directions"] = memory["directions"]
        return trainable, frozen

    def model(self, phase, trainable, frozen, key, progress):
        model, extra = super().model(phase, trainable, frozen, key, progress)
        if phase == 2:
            past = self._weighted(frozen["directions"], trainable["magnitudes"])
            model["adapters"] = factorized.map_sites(_beside, past, model["adapters"])
        return model, extra

    def end(self, memory, task: Task, trainable):
        memory = ViTClassifier.end(self, memory, task, trainable)
        slot = task.index - 1
        lora = trainable["lora"]
        unit = jax.tree.map(lambda v: v / jnp.maximum(jnp.linalg.norm(v), 1e-12), lora)
        size = factorized.map_sites(
            lambda f: jnp.linalg.norm(f["a"]) * jnp.linalg.norm(f["b"]), lora
        )
        before = trainable.get("magnitudes", memory["magnitudes"])
        return memory | {
            "directions": jax.tree.map(lambda d, v: d.at[slot].set(v), memory["directions"], unit),
            "magnitudes": jax.tree.map(lambda m, v: m.at[slot].set(v), before, size),
        }

    def inference(self, memory):
        adapters = self._weighted(memory["directions"], memory["magnitudes"])
        return {"trunk": memory["trunk"], "adapters": adapters}

    def added(self, memory, task: Task):
        slot = task.index - 1
        own = {
            "lora": jax.tree.map(lambda v: v[slot], memory["directions"]),
            "magnitudes": memory["magnitudes"],
        }
        return ViTClassifier.added(self, memory, task) | own

    def restore(self, memory, task: Task, added):
        slot = task.index - 1
        directions = jax.tree.map(
            lambda d, v: d.at[slot].set(v), memory["directions"], added["lora"]
        )
        own = {"directions": directions, "magnitudes": added["magnitudes"]}
        return ViTClassifier.restore(self, memory, task, added) | own

    def shared_parameters(self):
        return 0

    def parameters_per_task(self):
        return self._factor_parameters() + sum(map(len, self.shapes.values()))

    def _weighted(self, directions, magnitudes):
        """All directions side by side, [in, T r], with their magnitudes on the core's diagonal."""
        r = self.run.lora.rank

        def one(stack, magnitude):
            a, b = (jnp.moveaxis(stack[n], 0, 1).reshape(stack[n].shape[1], -1) for n in ("a", "b"))
            core = jnp.diag(jnp.repeat(self.run.lora.scale * magnitude, r))
            return {"a": a, "core": core, "b": b}

        return factorized.map_sites(one, directions, magnitudes)


def _beside(first: dict, second: dict) -> dict:
    """One adapter that adds what two add."""
    return {
        "a": jnp.concatenate([first["a"], second["a"]], axis=1),
        "core": jax.scipy.linalg.block_diag(first["core"], second["core"]),
        "b": jnp.concatenate([first["b"], second["b"]], axis=1),
    }
