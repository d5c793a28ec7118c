"""Adaptation in the first task, then frozen features: the first session of RanPAC and APER."""

from flcl import settings
from flcl.data.sequence.stream import Task
from flcl.methods.peers.lora_baselines import LoRASequential


class FirstSession(LoRASequential):
    """The LoRA of `lora_sequential`, which only task 1 trains. Memory: `lora`.

    Later tasks train nothing, so no feature moves, and heads that are solved from statistics are
    those of all images at once. Task 1 trains a linear head beside the LoRA; no answer comes from
    it, because it does not know later classes.
    """

    name = "first_session"
    run: settings.FirstSessionRun

    def steps(self, task: Task, images: int) -> int:
        return super().steps(task, images) if task.index == 1 else 0

    def added(self, memory, task: Task):
        stored = super().added(memory, task)
        if task.index == 1:
            return stored
        return {name: v for name, v in stored.items() if name not in ("head", "lora")}

    def restore(self, memory, task: Task, added):
        # What a later task did not store, it did not change.
        return super().restore(memory, task, super().added(memory, task) | added)
