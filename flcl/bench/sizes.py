"""The sizes of the benchmarks: `small` and `medium` for a CPU, `full` as in the papers."""

import dataclasses
from collections.abc import Mapping

from flcl import settings
from flcl.settings import bridge


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of all benchmarks.

    Attributes:
      convolutions: (side, channels, batch) of the single convolutions.
      groups: classes in the batch of a single convolution.
      step_groups: classes in the batch of a train step of phase 1; the first also of phase 2.
      window: the adapted convolutions in phase 2.
      generator: config keys of the U-Net's run.
      classifier: config keys of the vision transformer's run.
      bfloat16: activations are bfloat16 where the device is no CPU.
      loss_steps: train steps after which the losses of two number types are compared.
      guess: seconds of a benchmark that was never run here.
      loop_steps: train steps of one round of the whole loop.
      tasks: of the run whose last task is compared with its second.
      task_steps: train steps between two looks at the clock in that run.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    groups: tuple[int, ...]
    step_groups: tuple[int, ...]
    window: str
    generator: Mapping[str, object]
    classifier: Mapping[str, object]
    bfloat16: bool
    loss_steps: int
    guess: float
    loop_steps: int
    tasks: int
    task_steps: int

    def generator_run(self, **changes) -> settings.FunLoRARun:
        """FunLoRA on ten classes in two tasks; `changes` are keys with `__` instead of the dot."""
        return _run("funlora", _GENERATOR | self.generator, changes)

    def classifier_run(self, method: str, **changes) -> settings.ClassifierRun:
        """A classifier with random weights on ten classes in two tasks."""
        known = dict(bridge.keys(bridge.run_class(method)))
        values = {key: v for key, v in (_CLASSIFIER | self.classifier).items() if key in known}
        return _run(method, values, changes)


# Ten embedded classes. Ratios do not depend on pixels, so most benchmarks do not read them.
_SHARED = {"data.source": "fashion16", "data.channels": 3, "data.flip": True, "stream.tasks": "2"}
_GENERATOR = _SHARED | {"sample.solver": "euler"}
_CLASSIFIER = _SHARED | {"model.normalize": "half"}

_SMALL = Size(
    convolutions=((16, 32, 40), (8, 64, 40)),
    groups=(1, 2, 5, 10, 20),
    step_groups=(2, 10),
    window="16-21",  # the same place among 26 convolutions as 40-54 among 65
    generator={
        "data.image_size": 16,
        "model.width": 32,
        "model.multipliers": (1, 2),
        "model.blocks": 1,
        "model.attention": (8,),
        "model.head_channels": 32,
        "phase1.batch_size": 40,
        "phase2.batch_size": 40,
        "sample.num_steps": 20,
        "sample.chunk": 16,
        "judge.width": 16,
        "judge.batch_size": 64,
    },
    classifier={
        "data.image_size": 96,
        "model.variant": "Ti/16",
        "train.batch_size": 16,
        "rank.selector": "centred",  # as the paper describes FM-LoRA
        "prompt.tokens": 2,  # of 39 tokens, as 10 of 207
    },
    bfloat16=False,
    loss_steps=50,
    guess=30.0,
    loop_steps=5,
    tasks=20,
    task_steps=20,
)
# Layers wide enough that the work in them outweighs what surrounds them.
_MEDIUM = dataclasses.replace(
    _SMALL,
    convolutions=((32, 64, 40), (16, 128, 40)),
    generator=_SMALL.generator
    | {"data.image_size": 32, "model.width": 64, "model.attention": (16,)},
    classifier=_SMALL.classifier | {"data.image_size": 112, "model.variant": "S/16"},
)

SIZES: dict[str, Size] = {
    "small": _SMALL,
    "medium": _MEDIUM,
    "full": Size(
        convolutions=((32, 128, 120), (16, 256, 120), (8, 256, 120)),
        groups=(1, 2, 5, 10, 20),
        step_groups=(2, 8),
        window="40-54",
        generator={"data.image_size": 32, "sample.num_steps": 50, "sample.chunk": 64},
        classifier={
            "data.image_size": 224,
            "model.variant": "B/16",
            "train.batch_size": 64,
            "rank.selector": "centred",
            "prompt.tokens": 10,
        },
        bfloat16=True,
        loss_steps=50,
        guess=60.0,
        loop_steps=30,
        tasks=20,
        task_steps=20,
    ),
}


def find(name: str) -> Size:
    """The size with this name; raises `ValueError` for an unknown name."""
    if name not in SIZES:
        raise ValueError(f"--size={name}: accepted are {', '.join(SIZES)}")
    return SIZES[name]


def _run(method: str, values: Mapping[str, object], changes: Mapping[str, object]):
    run = bridge.defaults(method)
    named = {name.replace("__", "."): value for name, value in changes.items()}
    run.update_from_flattened_dict({**values, **named})
    return bridge.freeze(run)
