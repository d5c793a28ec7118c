"""The cost of a training step, from the compiled program and not from a clock."""

import jax
import ml_collections

from flcl import methods, settings
from flcl.cost import meter, programs
from flcl.data.sequence.stream import TaskStream
from flcl.devices import mesh as meshes
from flcl.settings import bridge


def step_flops(run: settings.ClassifierRun, stream: TaskStream) -> dict:
    """`step_flops` of each phase on one device, and `share_of_finetuning` for the same batch.

    Nothing is allocated. A phase without training has 0 FLOPs. Raises `ValueError` for a generator.
    """
    if not isinstance(run, settings.ClassifierRun):
        raise ValueError(f"--flops: method={run.method!r} is no classifier")
    run = programs.without_files(run)
    steps = _flops_of_steps(run, stream)
    flops = [steps.get(f"phase{phase}", 0.0) for phase in (1, 2)[: len(stream.tasks)]]
    config = ml_collections.ConfigDict(bridge.as_dict(run))
    every_parameter = bridge.freeze(bridge.switch(config, "vit_finetune"))
    full = _flops_of_steps(every_parameter, stream, phases=1)["phase1"]
    return {"step_flops": flops, "share_of_finetuning": [value / full for value in flops]}


def _flops_of_steps(
    run: settings.ClassifierRun, stream: TaskStream, phases: int = 2
) -> dict[str, float]:
    """FLOPs of the compiled train steps by name; on a GPU, FLOPs of the programs as written."""
    method, device = methods.build(run, stream), jax.devices()[0]
    mesh = meshes.make_mesh(devices=[device])
    flops = {}
    for program in [step for step in programs.programs_of(method) if step.trains][:phases]:
        lowered = program.lower(method, mesh, None)
        counted = meter.compiled_flops(lowered.compile(), device.platform)
        flops[program.name] = float(meter.written_flops(lowered) if counted is None else counted)
    return flops
