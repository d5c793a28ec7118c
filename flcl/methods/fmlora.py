"""FM-LoRA: F-LoRA in one shared subspace, DRS for the rank, DMP for the prompt (Yu et al. 2025).

Task 1 trains the bases A and B together with its core. Every later task trains two small factors
per adapted map inside that subspace. After the task they are added to the core and deleted, so the
memory does not grow. Classification needs no task id.
"""

import jax
import jax.numpy as jnp

from flcl import settings
from flcl.adapters import factorized, survey
from flcl.adapters.cores import COMBINATIONS
from flcl.adapters.rank_by_need import EnergyRank, rank_choice
from flcl.data.sequence.stream import Task, TaskStream
from flcl.methods import base, optimisation
from flcl.methods.vit_classifier import ViTClassifier
from flcl.models import vit

# Entries of the memory that every task stores, if the method has them.
_STORED = ("prompt", "selector", "complexity", "ranks", "rank_losses", "coverage")


class FMLoRA(ViTClassifier):
    """Memory, in addition to that of every classifier:

    `bases` (A, B per map), `cores` and `scales` (see `adapters.cores`), `prompt` [m, d] if m > 0,
    or its `tokens` [m, d] and `gates` [depth], the entries for the choice of ranks (see
    `adapters.rank`), `coverage` [T] if it is measured, and `newest`, M and N of the newest task,
    unless tasks are summed.
    """

    name = "fmlora"
    run: settings.FMLoRARun

    def __init__(self, run: settings.FMLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        blocks = settings.vit_blocks(run.lora.blocks, run.model.sizes.depth)
        self.shapes = vit.site_shapes(run.model, run.lora.sites, blocks)
        # All columns of A and B, also those that they may grow to.
        self.rank, tasks = run.lora.columns, stream.task_slots
        # How cores are combined (M1), and who chooses the rank (M5).
        self.cores = COMBINATIONS[run.lora.combine](tasks)
        kind, number = settings.rank_selector(run)
        self.ranks = rank_choice(run.rank, kind, number, self.shapes, self.rank, stream.joint)

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
        memory["bases"] = factorized.init_bases(
            key_bases, self.shapes, self.run.lora.rank, self.rank
        )
        if self.run.prompt.tokens:
            depth = self.run.model.sizes.depth
            prompt = factorized.init_prompt(key_prompt, self.run.prompt, self.width, depth)
            memory["prompt"] = prompt
        if self.run.lora.coverage or self._grows:
            memory["coverage"] = jnp.full(self.stream.task_slots, -1.0)  # not measured
        if self._apart:
            memory["newest"] = factorized.first_factors(self.shapes, self.rank)
        ranks = self.ranks.memory(self.stream.task_slots)
        assert not memory.keys() & ranks.keys(), "two parts of the method use one name"
        return memory | ranks

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        # F-LoRA: task 1 learns the bases; every later task trains M_t and N_t inside them.
        if task.index == 1:
            start = self.run.lora.bases
            trainable["factors"] = factorized.first_factors(self.shapes, self.rank, start)
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
        if not self.ranks.measures(task.index):
            return None
        return base.Preliminary(self.run.rank.probe_epochs, self.run.rank.holdout)

    def probing(self, frozen):
        return self.ranks.probing(frozen)

    def with_losses(self, memory, frozen, task, losses):
        return self.ranks.measured(memory, frozen, task.index, losses)

    def surveys(self, task):
        run, first = self.run, task.index == 1
        starts = run.lora.bases == "gradient" or (run.prompt.tokens and run.prompt.init == "mean")
        chooses = isinstance(self.ranks, EnergyRank) and not first
        return bool(run.lora.coverage or (starts and first) or chooses or self._grows)

    def survey(self, memory, compared, batch):
        """Sums: `gradient` [in, out] and `moments` [r, r] of each map, mean `patch` [d], `images`.

        See `adapters.survey`. The gradient is that of the function before the task.
        """
        weights, model = batch["weights"], self.inference(memory)
        head = {"kernel": memory["head"]["kernel"], "bias": memory["head"]["bias"][None]}

        def loss(trunk):
            variables = {"params": trunk, "adapter": model["adapters"]}
            images, prompt = self._normalised(batch["images"]), model["prompt"]
            features, seen = self.network.apply(variables, images, prompt, mutable="seen")
            losses = self.cross_entropies(head, compared, features, batch["labels"])
            return weights @ losses, seen["seen"]

        gradient, seen = survey.kernel_gradients(loss, model["trunk"], self.shapes)
        sums = {
            "gradient": gradient,
            "moments": survey.projected_moments(model["adapters"], seen, weights),
            "images": weights.sum(),
        }
        # Kept outputs show no patches, and then there is no prompt that could start from them.
        if "mean_patch" in seen:
            sums["patch"] = weights @ seen["mean_patch"][0].astype(jnp.float32)
        return sums

    def with_survey(self, memory, task, sums):
        run, index, memory = self.run, task.index, dict(memory)
        if index == 1 and run.lora.bases == "gradient":
            start = survey.gradient_bases(sums["gradient"], run.lora.rank, self.rank)
            memory["bases"] = start
        if index == 1 and run.prompt.tokens and run.prompt.init == "mean":
            # The tokens differ by their random part; equal ones would stay equal for ever.
            memory["prompt"] = memory["prompt"] + (sums["patch"] / sums["images"])[None]
        # Bases that task 1 has still to learn hold nothing.
        if "coverage" in memory and (index > 1 or run.lora.bases == "gradient"):
            share = survey.coverage(memory["bases"], sums["gradient"])
            memory["coverage"] = memory["coverage"].at[index - 1].set(share)
        if self._grows and index > 1:
            # M and N begin anew in every task and cores are zero there: no function changes.
            memory["bases"] = survey.grown(memory["bases"], sums["gradient"], run.lora.grow)
        if isinstance(self.ranks, EnergyRank):
            memory["moments"] = sums["moments"]
        return memory

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
        # Selector and scales are not kept per task: the new values replace the old ones.
        for name in ("selector", "scales"):
            if name in trainable:
                memory[name] = trainable[name]
        if "prompt" in trainable:
            memory["prompt"] = self._kept_prompt(memory["prompt"], trainable["prompt"], task.index)
        factors, every = trainable["factors"], jnp.ones(self.rank)
        if task.index == 1:
            core = factorized.task_core(factors, every)
            # The same update with orthonormal bases (M6).
            memory["bases"], core = factorized.regauge(trainable["bases"], core)
        else:
            # Only the columns of the chosen rank become part of the memory.
            factors, chosen = self.ranks.finish(memory, task.index, factors)
            core = factorized.task_core(factors, every)
            memory |= chosen | ({"newest": factors} if self._apart else {})
        # From here on M_t and N_t are not needed any more, unless they take less room.
        memory["cores"] = self.cores.fold(memory["cores"], task.index, core)
        slot = self.cores.slot(task.index)
        # The core was trained with the factor one, so that is its first scale.
        memory["scales"] = jax.tree.map(lambda s: s.at[slot].set(1.0), memory["scales"])
        return memory

    def _kept_prompt(self, past, trained, index: int):
        """The prompt after task `index`: as it was trained, or the mean over the tasks so far."""
        if not self.run.prompt.average:
            return trained
        return jax.tree.map(lambda old, new: old + (new - old) / index, past, trained)

    def inference(self, memory):
        cores = self.cores.total(memory["cores"], memory["scales"])
        adapters = factorized.collection(memory["bases"], cores, self.run.lora.scale)
        model = {"trunk": memory["trunk"], "adapters": adapters}
        return {**model, "prompt": memory.get("prompt")}

    def added(self, memory, task: Task):
        names = list(_STORED)
        # Bases that do not grow never change after task 1, so no other task stores them.
        names += ["bases"] if task.index == 1 or self._grows else []
        # Every task trains the scales of all earlier tasks, so it stores them all.
        names += ["scales"] if self.cores.trains_scales else []
        written = {name: memory[name] for name in names if name in memory}
        rank_of_task = self._stored_rank(memory, task)
        # A core that several tasks share has any rank. That of one task has r^2 numbers as it is,
        # and 2 r r_t as factors.
        if self._apart and 2 * rank_of_task < self.rank:
            written["factors"] = jax.tree.map(lambda f: f[:, :rank_of_task], memory["newest"])
        else:
            slot = self.cores.slot(task.index)
            written["cores"] = jax.tree.map(lambda core: core[slot], memory["cores"])
        return super().added(memory, task) | written

    def stored_as(self, target, shapes):
        # Runs of older versions stored cores only, and the losses of the candidates under another
        # name, so the save itself says what it has.
        if "['held_out']" in shapes:
            losses = target["rank_losses"]
            target = {k: v for k, v in target.items() if k != "rank_losses"} | {"held_out": losses}
        columns = {shape[-1] for name, shape in shapes.items() if name.startswith("['factors']")}
        if not columns:
            return target
        shape = jax.ShapeDtypeStruct((self.rank, min(columns)), jnp.float32)
        factors = factorized.map_sites(lambda _: {"m": shape, "n": shape}, self.shapes)
        return {k: v for k, v in target.items() if k != "cores"} | {"factors": factors}

    def restore(self, memory, task: Task, added):
        names = (*_STORED, "bases", "scales")
        kept = {name: added[name] for name in names if name in added}
        if "rank_losses" in memory and "rank_losses" not in added:
            kept["rank_losses"] = added["held_out"]  # its name in older versions
        if "factors" in added:
            whole = ((0, 0), (0, self.rank - jax.tree.leaves(added["factors"])[0].shape[1]))
            kept["newest"] = jax.tree.map(lambda f: jnp.pad(f, whole), added["factors"])
            core = factorized.task_core(kept["newest"], jnp.ones(self.rank))
        else:
            core = added["cores"]
        slot = self.cores.slot(task.index)
        cores = jax.tree.map(lambda c, v: c.at[slot].set(v), memory["cores"], core)
        return super().restore(memory, task, added) | kept | {"cores": cores}

    def diagnose(self, memory, task: Task) -> dict:
        """The rank and what it was chosen from; the coverage rho, and the bytes if they differ."""
        index, report = task.index, self.ranks.report(memory, task.index)
        rank_of_task = self.run.lora.rank if index == 1 else self.ranks.kept(memory, index)
        values = {"rank_selection": {"task": index, "rank": rank_of_task, **report}}
        if "coverage" in memory:
            share = float(memory["coverage"][index - 1])
            values["coverage"] = share if share >= 0 else None
        if self._grows:
            values["columns"] = survey.used_columns(memory["bases"])
        if self._apart:
            values["bytes"] = base.bytes_of(self.added(memory, task))
        return values

    @property
    def _grows(self) -> bool:
        """Whether A and B may get columns after task 1."""
        return self.rank > self.run.lora.rank

    @property
    def _apart(self) -> bool:
        """Whether the core of one task is stored, and not a sum over tasks."""
        return self.run.lora.combine != "sum"

    def _stored_rank(self, memory, task: Task) -> int:
        """The rank of a finished task; all columns if only the shapes of the memory are known."""
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(memory))
        return self.rank if traced or task.index == 1 else self.ranks.kept(memory, task.index)

    def shared_parameters(self):
        shapes = [shape for sites in self.shapes.values() for shape in sites.values()]
        # r (in + out) per map: 368,640 for q and v of ViT-B/16 with r = 10.
        return sum(self.rank * sum(shape) for shape in shapes)

    def parameters_per_task(self):
        # 2 r^2 per map, as the paper counts, also if DRS keeps fewer columns: 4,800 for q and v
        # of ViT-B/16.
        return 2 * self.rank**2 * sum(map(len, self.shapes.values()))

    def describe(self):
        prompt = self.run.prompt
        gates = self.run.model.sizes.depth if prompt.tokens and prompt.init == "gated" else 0
        return super().describe() | {"prompt_parameters": prompt.tokens * self.width + gates}
