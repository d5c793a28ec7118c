"""Benchmarks of toys: what they find means nothing, that they find it is tested."""

import dataclasses

import pytest

from flcl.bench.sizes import SIZES, Size

TINY = dataclasses.replace(
    SIZES["small"],
    convolutions=((4, 8, 4),),
    groups=(1, 2),
    step_groups=(2,),
    window="2-3",
    generator={
        "data.image_size": 16,
        "model.width": 8,
        "model.multipliers": (1,),
        "model.blocks": 1,
        "model.attention": (),
        "model.head_channels": 8,
        # Compiling the factors of every layer would take most of the time.
        "adapter.layers": "1-3",
        "adapter.functions": 2,
        "phase1.batch_size": 8,
        "phase2.batch_size": 8,
        "sample.num_steps": 2,
        "sample.chunk": 4,
        "judge.width": 4,
        "judge.stages": 1,
        "judge.batch_size": 8,
    },
    classifier={
        "data.image_size": 16,
        "model.variant": "Pico/8",
        "train.batch_size": 4,
        "rank.selector": "centred",
        "prompt.tokens": 1,
        "lora.blocks": "0-1",
    },
    loss_steps=4,
    loop_steps=2,
    tasks=3,
    task_steps=2,
)


@pytest.fixture(scope="session")
def size() -> Size:
    """Sizes of seconds."""
    return TINY
