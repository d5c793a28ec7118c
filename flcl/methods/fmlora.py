"""FM-LoRA: F-LoRA in one shared subspace, DRS for the rank, DMP for the prompt (Yu et al. 2025).

Task 1 trains the bases A and B together with its core. Every later task trains two small factors
per adapted map inside that subspace; after the task they are folded into the core and dropped, so
the memory does not grow. Nothing of a task is needed to classify.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flcl import checks, settings
from flcl.adapters import factorized, prompts, rank
from flcl.data.stream import Task, TaskStream
from flcl.methods import base, optimisation
from flcl.methods.vit_classifier import ViTClassifier
from flcl.models import vit


class FMLoRA(ViTClassifier):
    """Memory beside that of every classifier:

    `bases` (A, B per map), `cores` [K, r, r] and `scales` [K] per map (K = 1, or one per task with
    `lora.combine=scaled`), `prompt` [m, d] where m > 0, `selector` (w, b over the candidate ranks)
    and `complexity` [T] where a rank is chosen.
    """

    run: settings.FMLoRARun

    def __init__(self, run: settings.FMLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        blocks = checks.vit_blocks(run.lora.blocks, settings.vit_sizes(run.model.variant).depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)
        self.slots = len(stream.tasks) if run.lora.combine == "scaled" else 1
        self.fixed = checks.fixed_rank(run)

    def parts(self, phase):
        own, train = optimisation.Part(self.run.train.learning_rate), self.run.train
        later = optimisation.Part(train.learning_rate * self.run.lora.later_factor)
        factors = own if phase == 1 else later
        parts = {"head": optimisation.Part(train.head_learning_rate), "factors": factors}
        if phase == 1:
            parts["bases"] = own
        if self.run.prompt.tokens:
            factor = 1.0 if phase == 1 else self.run.prompt.later_factor
            parts["prompt"] = optimisation.Part(train.learning_rate * factor)
        if phase == 2 and self.fixed is None:
            chosen = self.run.rank
            parts["selector"] = optimisation.Part(chosen.learning_rate, until=chosen.schedule)
        if phase == 2 and self.run.lora.combine == "scaled":
            parts["scales"] = own
        return parts

    def init(self, key):
        key_base, key_bases, key_prompt = jax.random.split(key, 3)
        r, slots = self.run.lora.rank, self.slots
        memory = super().init(key_base) | {
            "bases": factorized.init_bases(key_bases, self.shapes, r),
            "cores": factorized.map_sites(lambda _: jnp.zeros((slots, r, r)), self.shapes),
            "scales": factorized.map_sites(lambda _: jnp.ones(slots), self.shapes),
        }
        if self.run.prompt.tokens:
            memory["prompt"] = prompts.init_prompt(key_prompt, self.run.prompt, self.width)
        if self.fixed is None:
            memory["selector"] = rank.init_selector(self.run.rank.candidates)
            memory["complexity"] = jnp.zeros(len(self.stream.tasks))
        return memory

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        r = self.run.lora.rank
        if task.index == 1:
            trainable["factors"] = factorized.first_factors(self.shapes, r)
            trainable["bases"] = memory["bases"]
        else:
            trainable["factors"] = factorized.later_factors(key, self.shapes, r)
            frozen |= {"bases": memory["bases"], "cores": memory["cores"]}
            if self.run.lora.combine == "scaled":
                trainable["scales"] = memory["scales"]
        if self.run.prompt.tokens:
            trainable["prompt"] = memory["prompt"]
        if self.fixed is None:
            frozen |= {"probe": jnp.asarray(False), "first": memory["complexity"][0]}
            frozen["complexity"] = memory["complexity"][task.index - 1]
            if task.index > 1:
                # Afresh: carried over, the pull of the penalty adds up and outweighs H.
                trainable["selector"] = rank.init_selector(self.run.rank.candidates)
        return trainable, frozen

    def preliminary(self, task):
        if self.fixed is not None or len(self.stream.tasks) == 1:
            return None
        return base.Preliminary(self.run.rank.probe_epochs, self.run.rank.holdout)

    def probing(self, frozen):
        return {**frozen, "probe": jnp.ones_like(frozen["probe"])}

    def with_complexity(self, memory, frozen, task, complexity):
        found = memory["complexity"].at[task.index - 1].set(complexity)
        known = {"complexity": found[task.index - 1], "first": found[0]}
        return {**memory, "complexity": found}, {**frozen, **known}

    def model(self, phase, trainable, frozen, key, progress):
        columns, penalty = self._columns(phase, trainable, frozen, key, progress)
        new = factorized.task_core(trainable["factors"], columns)
        bases = trainable["bases"] if phase == 1 else frozen["bases"]
        cores = new
        if phase == 2:
            past = self._past(frozen["cores"], trainable.get("scales"))
            cores = jax.tree.map(jnp.add, past, new)
        adapters = factorized.collection(bases, cores, self.run.lora.scale)
        found = {"trunk": frozen["trunk"], "adapters": adapters}
        return {**found, "prompt": trainable.get("prompt")}, penalty

    def end(self, memory, task: Task, trainable):
        memory = super().end(memory, task, trainable)
        for name in ("prompt", "selector", "scales"):
            if name in trainable:
                memory[name] = trainable[name]
        kept = factorized.task_core(trainable["factors"], self._kept(memory, task))
        if task.index == 1:
            memory["bases"], kept = factorized.regauge(trainable["bases"], kept)
        slot, summed = self._slot(task), self.run.lora.combine == "sum"

        def fold(cores, core):
            return cores.at[slot].set(cores[slot] + core if summed else core)

        memory["cores"] = factorized.map_sites(fold, memory["cores"], kept)
        memory["scales"] = jax.tree.map(lambda s: s.at[slot].set(1.0), memory["scales"])
        return memory

    def inference(self, memory):
        cores = self._total(memory["cores"], memory["scales"])
        adapters = factorized.collection(memory["bases"], cores, self.run.lora.scale)
        found = {"trunk": memory["trunk"], "adapters": adapters}
        return {**found, "prompt": memory.get("prompt")}

    def added(self, memory, task: Task):
        names = ["prompt", "selector", "complexity"]
        names += ["bases"] if task.index == 1 else []
        names += ["scales"] if self.run.lora.combine == "scaled" else []
        own = {name: memory[name] for name in names if name in memory}
        own["cores"] = jax.tree.map(lambda core: core[self._slot(task)], memory["cores"])
        return super().added(memory, task) | own

    def restore(self, memory, task: Task, added):
        own = ("bases", "scales", "prompt", "selector", "complexity")
        kept = {name: added[name] for name in own if name in added}
        slot = self._slot(task)
        cores = jax.tree.map(lambda c, v: c.at[slot].set(v), memory["cores"], added["cores"])
        return super().restore(memory, task, added) | kept | {"cores": cores}

    def diagnose(self, memory, task: Task) -> dict:
        """The chosen rank, the complexity H and, when it was fixed, the probabilities p(r)."""
        chosen = self.run.rank
        found = {"task": task.index, "rank": int(self._kept(memory, task).sum())}
        if self.fixed is not None:
            return {"rank_selection": {**found, "complexity": None, "probabilities": None}}
        values = memory["complexity"]
        logits = self._logits(memory["selector"], values[task.index - 1], values[0])
        later = task.index > 1
        return {
            "rank_selection": {
                **found,
                "complexity": float(values[task.index - 1]) if len(self.stream.tasks) > 1 else None,
                "centred": float(rank.centre(values[task.index - 1], values[0])) if later else None,
                "candidates": list(chosen.candidates),
                "probabilities": jax.nn.softmax(logits / chosen.final_temperature).tolist()
                if later
                else None,
            }
        }

    def shared_parameters(self):
        r = self.run.lora.rank
        return sum(r * sum(shape) for sites in self.shapes.values() for shape in sites.values())

    def describe(self):
        return super().describe() | {"prompt_parameters": self.run.prompt.tokens * self.width}

    def parameters_per_task(self):
        return 2 * self.run.lora.rank**2 * sum(map(len, self.shapes.values()))

    def _columns(self, phase, trainable, frozen, key, progress):
        """Weight of each column of M and N, [r], and the penalty on the rank."""
        r = self.run.lora.rank
        if phase == 1:
            return jnp.ones(r), jnp.zeros(())
        if self.fixed is not None:
            return jnp.asarray(np.arange(r) < self.fixed, jnp.float32), jnp.zeros(())
        logits = self._logits(trainable["selector"], frozen["complexity"], frozen["first"])
        columns, penalty = rank.choose(key, logits, progress, self.run.rank, r)
        probe = frozen["probe"]  # the short run takes the largest rank
        return jnp.where(probe, jnp.ones(r), columns), jnp.where(probe, 0.0, penalty)

    def _logits(self, selector, complexity, first):
        return rank.logits(selector, complexity, first, self.run.rank.selector)

    def _kept(self, memory, task: Task) -> jax.Array:
        """1 for the columns that a finished task keeps, [r]."""
        r, values = self.run.lora.rank, memory.get("complexity")
        if task.index == 1:
            return jnp.ones(r)
        if self.fixed is not None:
            return jnp.asarray(np.arange(r) < self.fixed, jnp.float32)
        logits = self._logits(memory["selector"], values[task.index - 1], values[0])
        one = jax.nn.one_hot(jnp.argmax(logits), logits.size)
        return rank.columns(one, self.run.rank.candidates, r)

    def _slot(self, task: Task) -> int:
        """Where a finished task's core goes."""
        return task.index - 1 if self.run.lora.combine == "scaled" else 0

    def _past(self, cores, scales):
        """What earlier tasks contribute while a later one trains, [r, r] per map."""
        if self.run.lora.combine == "last":
            return jax.tree.map(lambda core: jnp.zeros_like(core[0]), cores)
        return self._total(cores, scales)

    def _total(self, cores, scales):
        if scales is None:
            return jax.tree.map(lambda core: core[0], cores)
        return jax.tree.map(lambda core, scale: jnp.einsum("k,kij->ij", scale, core), cores, scales)
