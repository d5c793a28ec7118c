"""FM-LoRA compared with full fine-tuning, and its inference compared with the bare transformer."""

from collections.abc import Iterator

import jax

from flcl import settings
from flcl.bench.figures import Figure, counted, timed
from flcl.bench.programs import (
    Training,
    dtype_of,
    method_of,
    one_device,
    random_batch,
    random_memory,
    rates,
)
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.cost import meter
from flcl.cost.programs import FEATURES, with_batch


def vit_step(size: Size, rounds: int) -> Iterator[Figure]:
    """FM-LoRA's train step in a later task against full fine-tuning of the same transformer."""
    dtype = dtype_of(size)
    run = size.classifier_run("fmlora", model__dtype=dtype, model__trunk_dtype=dtype)
    later = Training(run, 2)
    full = Training(size.classifier_run("vit_finetune", model__dtype=dtype), 2)
    seconds = interleave({"later": later, "full": full}, rounds)
    more = later.rates(seconds["later"]) | {"memory_ratio": later.bytes / full.bytes}
    yield timed("vit_step", seconds["later"], seconds["full"], **more)
    note = f"{later.bytes / 2**20:,.0f} of {full.bytes / 2**20:,.0f} MiB of device memory"
    yield counted("vit_step/bytes", later.bytes, full.bytes, note)


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
    """A call that computes the features of one batch, with its FLOPs and number of images."""
    size = run.train.batch_size
    method = method_of(with_batch(run, FEATURES.batch_key, size))
    memory = random_memory(method)
    images = jax.device_put(random_batch(method, 1, (0,))["images"])
    lowered = FEATURES.lower(method, one_device(), None)
    compiled = lowered.compile()
    return lambda: compiled(memory, images), meter.written_flops(lowered), size
