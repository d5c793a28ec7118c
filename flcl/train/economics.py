"""What a training step costs, from the compiled program and not from a clock."""

import dataclasses

import jax
import jax.numpy as jnp

from flcl import settings
from flcl.methods.base import Classifier
from flcl.rng import stream_key
from flcl.train import mesh as meshes
from flcl.train.phase import Phase
from flcl.train.setup import Build


def step_flops(run: settings.ClassifierRun, stream, build: Build) -> dict:
    """`step_flops` of each phase on one device, and `share_of_finetuning` of the same batch.

    Raises `ValueError` for a generator.
    """
    if not isinstance(run, settings.ClassifierRun):
        raise ValueError(f"--flops: method={run.method!r} is no classifier")
    if run.model.normalize == "weights":  # the file decides it, and it changes no count
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, normalize="half"))
    phases = [1] if len(stream.tasks) == 1 else [1, 2]
    own = [_flops(build(run, stream), phase) for phase in phases]
    model = dataclasses.replace(run.model, trunk_dtype="float32")
    shared = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    names = [field.name for field in dataclasses.fields(settings.ClassifierRun)]
    whole = settings.ClassifierRun(
        **{name: shared[name] for name in names} | {"method": "vit_finetune", "model": model}
    )
    full = _flops(build(whole, stream), 1)
    return {"step_flops": own, "share_of_finetuning": [flops / full for flops in own]}


def _flops(method: Classifier, phase: int) -> float:
    """FLOPs of the compiled step; nothing is allocated. 0 for a method that trains nothing."""
    run, task = method.run, method.stream.tasks[phase - 1]
    if not method.steps(task, 1):
        return 0.0
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    key = stream_key(0, "flops")
    memory = jax.eval_shape(method.init, key)
    trainable, frozen = jax.eval_shape(lambda m, k: method.begin(m, task, k), memory, key)
    programs = Phase(method, phase, trainable, frozen, mesh)
    state = jax.eval_shape(programs.create, trainable, 1)
    data, size = run.data, run.train.batch_size
    shape = (size, data.image_size, data.image_size, data.channels)
    batch = {
        "images": jax.ShapeDtypeStruct(shape, jnp.uint8),
        "labels": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    compiled = programs.step.lower(state, frozen, batch, key).compile()
    return float(compiled.cost_analysis()["flops"])
