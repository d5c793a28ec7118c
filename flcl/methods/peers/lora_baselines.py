"""Plain low-rank adapters with the same backbone, data, steps and heads as FM-LoRA."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from flcl import settings
from flcl.adapters import factorized
from flcl.data.sequence.stream import Task, TaskStream
from flcl.methods import optimisation
from flcl.methods.vit_classifier import ViTClassifier
from flcl.models import vit

SHARED_START = 0.8
"""The first value of every shared magnitude, in the public code of SD-LoRA."""


class LoRAClassifier(ViTClassifier):
    """The common part of methods with a plain LoRA, dW = A B', on some maps."""

    run: settings.LoRARun

    def __init__(self, run: settings.LoRARun, stream: TaskStream):
        super().__init__(run, stream)
        blocks = settings.vit_blocks(run.lora.blocks, run.model.sizes.depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)

    def parts(self, phase):
        return super().parts(phase) | {"lora": optimisation.Part(self.run.train.learning_rate)}

    def model(self, phase, trainable, frozen, key, progress):
        del phase, key, progress
        adapters = self.plain(trainable["lora"])
        return {"trunk": frozen["trunk"], "adapters": adapters}, jnp.zeros(())

    def fresh(self, key) -> dict:
        """A new LoRA with a zero update."""
        return factorized.init_bases(key, self.shapes, self.run.lora.rank)

    def plain(self, lora) -> dict:
        """One LoRA in the form that the transformer reads: A I B'."""
        # In the form of F-LoRA, so the transformer knows only one kind of adapter.
        identity = jnp.eye(self.run.lora.rank)
        cores = factorized.map_sites(lambda _: identity, self.shapes)
        return factorized.collection(lora, cores, self.run.lora.scale)

    def factor_parameters(self) -> int:
        """Number of parameters in one LoRA."""
        shapes = [shape for sites in self.shapes.values() for shape in sites.values()]
        return self.run.lora.rank * sum(map(sum, shapes))


class LoRASequential(LoRAClassifier):
    """One LoRA that every task trains further. Memory: `lora`."""

    name = "lora_sequential"

    def init(self, key):
        key_base, key_lora = jax.random.split(key)
        return super().init(key_base) | {"lora": self.fresh(key_lora)}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        return trainable | {"lora": memory["lora"]}, frozen

    def end(self, memory, task: Task, trainable):
        return super().end(memory, task, trainable) | {"lora": trainable["lora"]}

    def inference(self, memory):
        return {"trunk": memory["trunk"], "adapters": self.plain(memory["lora"])}

    def added(self, memory, task: Task):
        # Every task changes the one LoRA, so every task stores all of it.
        return super().added(memory, task) | {"lora": memory["lora"]}

    def restore(self, memory, task: Task, added):
        return super().restore(memory, task, added) | {"lora": added["lora"]}

    def shared_parameters(self):
        return self.factor_parameters()


class SDLoRA(LoRAClassifier):
    """One LoRA per task, with separate direction and magnitude (Wu et al., ICLR 2025).

    dW = sum_k alpha_k A_k B_k' / (|A_k| |B_k|) + beta A_t B_t': earlier directions are frozen,
    their magnitudes still train. `lora.magnitudes` says which magnitudes there are:

    `shared`, as in the authors' public code: one alpha_k for all maps, and beta, which also trains.
      All of them start at 0.8 in every task, so the function changes at the start of a task.
    `per_map` (ours): an alpha_k for each map that starts at |A_k| |B_k|, and beta = 1, so a task
      starts with the function of the last one.

    Memory: `directions` (A, B of unit norm, [T, in, r] and [T, out, r] per map) and `magnitudes`
    [T] per map, zero for later tasks. The memory grows with the number of tasks.
    """

    name = "sd_lora"
    run: settings.SDLoRARun

    def __init__(self, run: settings.SDLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        self.shared = run.lora.magnitudes == "shared"

    def parts(self, phase):
        # Task 1 has no earlier directions; only a shared beta trains in it.
        has_magnitudes = self.shared or phase == 2
        full_rate = optimisation.Part(self.run.train.learning_rate)
        return super().parts(phase) | ({"magnitudes": full_rate} if has_magnitudes else {})

    def init(self, key):
        key_base, _ = jax.random.split(key)
        tasks = self.stream.task_slots
        # Only the shapes: a slot gets its values at the end of its task.
        fresh = jax.eval_shape(self.fresh, key)
        return super().init(key_base) | {
            "directions": jax.tree.map(lambda v: jnp.zeros((tasks, *v.shape)), fresh),
            "magnitudes": factorized.map_sites(lambda _: jnp.zeros(tasks), self.shapes),
        }

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        trainable["lora"] = self.fresh(key)
        if task.index > 1:
            frozen["directions"] = memory["directions"]
            if not self.shared:
                trainable["magnitudes"] = memory["magnitudes"]
        if self.shared:
            past = {"past": jnp.full(self.stream.task_slots, SHARED_START)}
            newest = {"newest": jnp.asarray(SHARED_START)}
            trainable["magnitudes"] = newest | (past if task.index > 1 else {})
        return trainable, frozen

    def model(self, phase, trainable, frozen, key, progress):
        model, extra = super().model(phase, trainable, frozen, key, progress)
        newest = model["adapters"]
        if self.shared:
            beta = trainable["magnitudes"]["newest"]
            newest = factorized.map_sites(lambda f: {**f, "core": beta * f["core"]}, newest)
        if phase == 2:
            past = self._weighted(frozen["directions"], self._past(trainable))
            newest = factorized.map_sites(beside, past, newest)
        return {**model, "adapters": newest}, extra

    def end(self, memory, task: Task, trainable):
        memory = super().end(memory, task, trainable)
        slot = task.index - 1
        lora = trainable["lora"]
        # SD-LoRA stores direction and length apart: of earlier tasks, only the length still
        # trains.
        unit = jax.tree.map(lambda v: v / jnp.maximum(jnp.linalg.norm(v), 1e-12), lora)
        beta = trainable["magnitudes"]["newest"] if self.shared else 1.0
        size = factorized.map_sites(
            lambda f: beta * (jnp.linalg.norm(f["a"]) * jnp.linalg.norm(f["b"])), lora
        )
        before = memory["magnitudes"] if task.index == 1 else self._past(trainable)
        return memory | {
            "directions": jax.tree.map(lambda d, v: d.at[slot].set(v), memory["directions"], unit),
            "magnitudes": jax.tree.map(
                # Slots of later tasks stay zero: they have no direction yet.
                lambda m, v: jnp.where(np.arange(len(m)) < slot, m, 0.0).at[slot].set(v),
                before,
                size,
            ),
        }

    def inference(self, memory):
        adapters = self._weighted(memory["directions"], memory["magnitudes"])
        return {"trunk": memory["trunk"], "adapters": adapters}

    def added(self, memory, task: Task):
        slot = task.index - 1
        # The direction of this task only, but all magnitudes, because every task changes those of
        # earlier tasks.
        written = {
            "lora": jax.tree.map(lambda v: v[slot], memory["directions"]),
            "magnitudes": memory["magnitudes"],
        }
        return super().added(memory, task) | written

    def restore(self, memory, task: Task, added):
        slot = task.index - 1
        directions = jax.tree.map(
            lambda d, v: d.at[slot].set(v), memory["directions"], added["lora"]
        )
        restored = {"directions": directions, "magnitudes": added["magnitudes"]}
        return super().restore(memory, task, added) | restored

    def parameters_per_task(self):
        # The factors of a task, and its magnitude: one, or one for each map.
        maps = 1 if self.shared else sum(map(len, self.shapes.values()))
        return self.factor_parameters() + maps

    def _past(self, trainable) -> dict:
        """The magnitudes of earlier tasks, [T] per map."""
        magnitudes = trainable["magnitudes"]
        if not self.shared:
            return magnitudes
        return factorized.map_sites(lambda _: magnitudes["past"], self.shapes)

    def _weighted(self, directions, magnitudes):
        """All directions side by side, [in, T r]; their magnitudes are the core's diagonal."""
        r = self.run.lora.rank

        # One adapter of rank T r. Slots of later tasks are zero, so no shape depends on the task.
        def weighted(stack, magnitude):
            a, b = (rearrange(stack[name], "t n r -> n (t r)") for name in ("a", "b"))
            core = jnp.diag(jnp.repeat(self.run.lora.scale * magnitude, r))
            return {"a": a, "core": core, "b": b}

        return factorized.map_sites(weighted, directions, magnitudes)


def beside(first: dict, second: dict) -> dict:
    """One adapter whose update is the sum of two."""
    return {
        "a": jnp.concatenate([first["a"], second["a"]], axis=1),
        "core": jax.scipy.linalg.block_diag(first["core"], second["core"]),
        "b": jnp.concatenate([first["b"], second["b"]], axis=1),
    }
