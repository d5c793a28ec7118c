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
        blocks = settings.vit_blocks(run.lora.blocks, run.model.sizes.depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)
        self.rank, tasks = run.lora.rank, len(stream.tasks)
        # How cores are combined (M1), and who chooses the rank (M5).
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
            # Nearly all movement of old features comes from the prompt, so later tasks may change
            # it more slowly (M7).
            factor = 1.0 if phase == 1 else self.run.prompt.later_factor
            parts["prompt"] = optimisation.Part(train.learning_rate * factor)
        if phase == 1:
            # Only task 1 trains the bases A and B.
            return parts | {"factors": full_rate, "bases": full_rate}
        later = optimisation.Part(train.learning_rate * self.run.lora.later_factor)
        parts["factors"] = later
        if self.ranks.learned:
            # After the schedule the selector has no gradient, but the momentum of Adam would
            # still move it, and with it the argmax.
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
        # F-LoRA: task 1 learns the bases; every later task trains M_t and N_t inside them.
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
        # If there is only one task there is nothing to choose: task 1 always uses all columns.
        if not self.ranks.learned or len(self.stream.tasks) == 1:
            return None
        return base.Preliminary(self.run.rank.probe_epochs, self.run.rank.holdout)

    def probing(self, frozen):
        # A traced flag: the short run uses the compiled step of its phase.
        return {**frozen, "probe": jnp.ones_like(frozen["probe"])}

    def with_complexity(self, memory, frozen, task, complexity):
        measured = memory["complexity"].at[task.index - 1].set(complexity)
        # In task 1 both are its own H, so its centred value is 0 (M4).
        known = {"complexity": measured[task.index - 1], "first": measured[0]}
        return {**memory, "complexity": measured}, {**frozen, **known}

    def model(self, phase, trainable, frozen, key, progress):
        # dW = A M N' B' with all r columns: task 1 learns the bases and chooses no rank.
        if phase == 1:
            bases, penalty = trainable["bases"], jnp.zeros(())
            cores = factorized.task_core(trainable["factors"], jnp.ones(self.rank))
        else:
            # dW = A (earlier cores + M_t N_t') B'. Only the columns that DRS keeps count in M_t
            # N_t'.
            bases = frozen["bases"]
            columns, penalty = self.ranks.columns(trainable, frozen, key, progress)
            new = factorized.task_core(trainable["factors"], columns)
            past = self.cores.past(frozen["cores"], trainable.get("scales"))
            # The sum is a matrix r x r, so earlier tasks add no work to the forward pass.
            cores = jax.tree.map(jnp.add, past, new)
        adapters = factorized.collection(bases, cores, self.run.lora.scale)
        model = {"trunk": frozen["trunk"], "adapters": adapters}
        return {**model, "prompt": trainable.get("prompt")}, penalty

    def end(self, memory, task: Task, trainable):
        memory = super().end(memory, task, trainable)
        # Prompt, selector and scales are not kept per task: the new values replace the old ones.
        for name in ("prompt", "selector", "scales"):
            if name in trainable:
                memory[name] = trainable[name]
        # Only the columns of the chosen rank become part of the memory.
        core = factorized.task_core(trainable["factors"], self._kept(memory, task))
        if task.index == 1:
            # The same update with orthonormal bases (M6).
            memory["bases"], core = factorized.regauge(trainable["bases"], core)
        # From here on M_t and N_t are not needed any more.
        memory["cores"] = self.cores.fold(memory["cores"], task.index, core)
        slot = self.cores.slot(task.index)
        # The core was trained with the factor one, so that is its first scale.
        memory["scales"] = jax.tree.map(lambda s: s.at[slot].set(1.0), memory["scales"])
        return memory

    def inference(self, memory):
        cores = self.cores.total(memory["cores"], memory["scales"])
        adapters = factorized.collection(memory["bases"], cores, self.run.lora.scale)
        model = {"trunk": memory["trunk"], "adapters": adapters}
        return {**model, "prompt": memory.get("prompt")}

    def added(self, memory, task: Task):
        names = ["prompt", "selector", "complexity"]
        # The bases never change after task 1, so no other task stores them.
        names += ["bases"] if task.index == 1 else []
        # Every task trains the scales of all earlier tasks, so it stores them all.
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
        # r (in + out) per map: 368,640 for q and v of ViT-B/16 with r = 10.
        return sum(self.rank * sum(shape) for shape in shapes)

    def parameters_per_task(self):
        # 2 r^2 per map, as the paper counts, also if DRS keeps fewer columns: 4,800 for q and v
        # of ViT-B/16.
        return 2 * self.rank**2 * sum(map(len, self.shapes.values()))

    def describe(self):
        return super().describe() | {"prompt_parameters": self.run.prompt.tokens * self.width}

    def _kept(self, memory, task: Task) -> jax.Array:
        """1 for each column that a finished task keeps, [r]; the first task keeps all columns."""
        return jnp.ones(self.rank) if task.index == 1 else self.ranks.kept(memory, task.index)
