"""FM-LoRA against fine-tuning every parameter, and its inference against the bare transformer."""

from collections.abc import Iterator

import jax

from flcl import methods, settings
from flcl.bench.figures import Figure, counted, timed
from flcl.bench.programs import (
    CLASSES,
    Training,
    dtype_of,
    flops_of,
    random_batch,
    random_memory,
    rates,
)
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.data.base import placeholder
from flcl.data.stream import make_stream


def vit_step(size: Size, rounds: int) -> Iterator[Figure]:
    """FM-LoRA's train step in a later task against fine-tuning all of the same transformer."""
    dtype = dtype_of(size)
    own = Training(size.classifier_run("fmlora", model__dtype=dtype, model__trunk_dtype=dtype), 2)
    full = Training(size.classifier_run("vit_finetune", model__dtype=dtype), 2)
    seconds = interleave({"own": own, "full": full}, rounds)
    more = own.rates(seconds["own"]) | {"memory_ratio": own.bytes / full.bytes}
    yield timed("vit_step", seconds["own"], seconds["full"], **more)
    note = f"{own.bytes / 2**20:,.0f} of {full.bytes / 2**20:,.0f} MiB of device memory"
    yield counted("vit_step/bytes", own.bytes, full.bytes, note)


def vit_inference(size: Size, rounds: int) -> Iterator[Figure]:
    """Features with FM-LoRA's adapters, tasks folded into one core, against the bare ViT."""
    dtype = dtype_of(size)
    calls, flops, images = {}, {}, 0
    tokens = {"vit_inference": None, "vit_inference/no_prompt": 0}
    for name, count in tokens.items():
        changes = {} if count is None else {"prompt__tokens": count}
        run = size.classifier_run("fmlora", model__dtype=dtype, **changes)
        calls[name], flops[name], images = features(run)
    calls["bare"], _, _ = features(size.classifier_run("linear_probe", model__dtype=dtype))
    seconds = interleave(calls, rounds)
    for name in tokens:
        more = rates(images, flops[name], seconds[name])
        yield timed(name, seconds[name], seconds["bare"], **more)


def features(run: settings.ClassifierRun) -> tuple:
    """A call that computes the features of one batch, its FLOPs and its images."""
    stream = make_stream(run.stream, placeholder(CLASSES))
    method = methods.build(run, stream)
    memory = random_memory(method)
    images = jax.device_put(random_batch(run, 1, (0,))["images"])
    lowered = jax.jit(method.features).lower(memory, images)
    compiled = lowered.compile()
    return lambda: compiled(memory, images), flops_of(lowered), len(images)
