"""What a training step costs, from the compiled program and not from a clock."""

import jax
import ml_collections

from flcl import methods, settings
from flcl.cost import lowering
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier
from flcl.settings import bridge


def step_flops(run: settings.ClassifierRun, stream) -> dict:
    """`step_flops` of each phase on one device, and `share_of_finetuning` of the same batch.

    Raises `ValueError` for a generator.
    """
    if not isinstance(run, settings.ClassifierRun):
        raise ValueError(f"--flops: method={run.method!r} is no classifier")
    run = lowering.without_files(run)
    phases = [1] if len(stream.tasks) == 1 else [1, 2]
    own = [_flops(methods.build(run, stream), phase) for phase in phases]
    config = ml_collections.ConfigDict(bridge.as_dict(run))
    whole = bridge.freeze(bridge.switch(config, "vit_finetune"))
    full = _flops(methods.build(whole, stream), 1)
    return {"step_flops": own, "share_of_finetuning": [flops / full for flops in own]}


def _flops(method: Classifier, phase: int) -> float:
    """FLOPs of the compiled step; nothing is allocated. 0 for a method that trains nothing."""
    if phase not in lowering.phases(method):
        return 0.0
    lowered = lowering.lower_step(method, phase, meshes.make_mesh(devices=jax.devices()[:1]))
    return float(lowered.compile().cost_analysis()["flops"])
