"""FM-LoRA: F-LoRA in one shared subspace, DRS for the rank, DMP for the prompt (Yu et al. 2025).

Task 1 trains the bases A and B together with its core. Every later task trains two small factors
per adapted map inside that subspace. After the task they are added to the core and deleted, so the
memory does not grow. Classification needs no task id.
"""

import jax
import jax.numpy as jnp

from flcl import settings
from flcl.adapters import factorized, rank
from flcl.adapters.cores import COMBINATIONS
from flcl.data.stream import Task, TaskStream
from flcl.methods import base, optimisation
from flcl.methods.vit_classifier import ViTClassifier
from flcl.models import vit


class FMLoRA(ViTClassifier):
    """Memory, in addition to that of every classifier:

    `bases` (A, B per map), `cores` and `scales` (see `adapters.cores`), `prompt` [m, d] if m > 0,
    and the entries for the choice of ranks (see `adapters.rank`).
    """

    name = "fmlora"
    run: settings.FMLoRARun

    def __init__(self, run: settings.FMLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        blocks = settings.vit_blocks(run.lora.blocks, settings.vit_sizes(run.model.variant).depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)
        self.rank, tasks = run.lora.rank, len(stream.tasks)
        self.cores = COMBINATIONS[run.lora.combine](tasks)
        fixed = settings.fixed_rank(run)
        self.ranks: rank.RankChoice = (
            rank.LearnedRank(run.rank, self.rank, tasks)
            if fixed is None
            else rank.FixedRank(self.rank, fixed)
        )

    def parts(self, phase):
        train, selection = self.run.train, self.run.rank
        full_rate = optimisation.Part(train.learning_rate)
        parts = {"head": optimisation.Part(train.head_learning_rate)}
        if self.run.prompt.tokens:
            factor = 1.0 if phase == 1 else self.run.prompt.later_factor
            parts["prompt"] = optimisation.Part(train.learning_rate * factor)
        if phase == 1:
            return parts | {"factors": full_rate, "bases": full_rate}
        later = optimisation.Part(train.learning_rate * self.run.lora.later_factor)
        parts["factors"] = later
        if self.ranks.learned:
            parts["selector"] = optimisation.Part(selection.learning_rate, until=selection.schedule)
        return parts | ({"scales": full_rate} if self.cores.trains_scales else {})

    def init(self, key):
        key_base, key_bases, key_prompt = jax.random.split(key, 3)
        memory = super().init(key_base) | self.cores.memory(self.shapes, self.rank)
        memory["bases"] = factorized.init_bases(key_bases, self.shapes, self.rank)
        if self.run.prompt.tokens:
            memory["prompt"] = factorized.init_prompt(key_prompt, self.run.prompt, self.width)
        return memory | self.ranks.memory(len(self.stream.tasks))

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        if task.index == 1:
            trainable["factors"] = factorized.first_factors(self.shapes, self.rank)
            trainable["bases"] = memory["bases"]
        else:
            trainable["factors"] = factorized.later_factors(key, self.shapes, self.rank)
            frozen |= {"bases": memory["bases"], "cores": memory["cores"]}
            if self.cores.trains_scales:
                trainable["scales"] = memory["scales"]
        if self.run.prompt.tokens:
            trainable["prompt"] = memory["prompt"]
        selecting, measured = self.ranks.begin(memory, task.index)
        return trainable | selecting, frozen | measured

    def preliminary(self, task):
        if not self.ranks.learned or len(self.stream.tasks) == 1:
            return None
        return base.Preliminary(self.run.rank.probe_epochs, self.run.rank.holdout)

    def probing(self, frozen):
        return {**frozen, "probe": jnp.ones_like(frozen["probe"])}

    def with_complexity(self, memory, frozen, task, complexity):
        measured = memory["complexity"].at[task.index - 1].set(complexity)
        known = {"complexity": measured[task.index - 1], "first": measured[0]}
        return {**memory, "complexity": measured}, {**frozen, **known}

    def model(self, phase, trainable, frozen, key, progress):
        if phase == 1:
            bases, penalty = trainable["bases"], jnp.zeros(())
            cores = factorized.task_core(trainable["factors"], jnp.ones(self.rank))
        else:
            bases = frozen["bases"]
            columns, penalty = self.ranks.columns(trainable, frozen, key, progress)
            new = factorized.task_core(trainable["factors"], columns)
            past = self.cores.past(frozen["cores"], trainable.get("scales"))
            cores = jax.tree.map(jnp.add, past, new)
        adapters = factorized.collection(bases, cores, self.run.lora.scale)
        model = {"trunk": frozen["trunk"], "adapters": adapters}
        return {**model, "prompt": trainable.get("prompt")}, penalty

    def end(self, memory, task: Task, trainable):
        memory = super().end(memory, task, trainable)
        for name in ("prompt", "selector", "scales"):
            if name in trainable:
                memory[name] = trainable[name]
        core = factorized.task_core(trainable["factors"], self._kept(memory, task))
        if task.index == 1:
            memory["bases"], core = factorized.regauge(trainable["bases"], core)
        memory["cores"] = self.cores.fold(memory["cores"], task.index, core)
        slot = self.cores.slot(task.index)
        memory["scales"] = jax.tree.map(lambda s: s.at[slot].set(1.0), memory["scales"])
        return memory

    def inference(self, memory):
        cores = self.cores.total(memory["cores"], memory["scales"])
        adapters = factorized.collection(memory["bases"], cores, self.run.lora.scale)
        model = {"trunk": memory["trunk"], "adapters": adapters}
        return {**model, "prompt": memory.get("prompt")}

    def added(self, memory, task: Task):
        names = ["prompt", "selector", "complexity"]
        names += ["bases"] if task.index == 1 else []
        names += ["scales"] if self.cores.trains_scales else []
        written = {name: memory[name] for name in names if name in memory}
        slot = self.cores.slot(task.index)
        written["cores"] = jax.tree.map(lambda core: core[slot], memory["cores"])
        return super().added(memory, task) | written

    def restore(self, memory, task: Task, added):
        names = ("bases", "scales", "prompt", "selector", "complexity")
        kept = {name: added[name] for name in names if name in added}
        slot = self.cores.slot(task.index)
        cores = jax.tree.map(lambda c, v: c.at[slot].set(v), memory["cores"], added["cores"])
        return super().restore(memory, task, added) | kept | {"cores": cores}

    def diagnose(self, memory, task: Task) -> dict:
        """The rank, the complexity H and, if the rank was chosen, p(r)."""
        rank_of_task = int(self._kept(memory, task).sum())
        report = self.ranks.report(memory, task.index)
        return {"rank_selection": {"task": task.index, "rank": rank_of_task, **report}}

    def shared_parameters(self):
        shapes = [shape for sites in self.shapes.values() for shape in sites.values()]
        return sum(self.rank * sum(shape) for shape in shapes)

    def parameters_per_task(self):
        return 2 * self.rank**2 * sum(map(len, self.shapes.values()))

    def describe(self):
        return super().describe() | {"prompt_parameters": self.run.prompt.tokens * self.width}

    def _kept(self, memory, task: Task) -> jax.Array:
        """1 for each column that a finished task keeps, [r]; the first task keeps all columns."""
        return jnp.ones(self.rank) if task.index == 1 else self.ranks.kept(memory, task.index)
