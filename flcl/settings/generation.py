"""Keys of the continual generators."""

import dataclasses
from typing import Literal

from flcl.settings.keys import above, at_least, every, from_to_below, key, section
from flcl.settings.shared import Run, TrainingData

FamilyName = Literal["vanilla_add", "vanilla_mult", "shift", "power", "cosine", "cosine_learnable"]
SolverName = Literal["euler", "midpoint", "heun", "dopri5"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """The flow-matching U-Net whose counts are those of the paper (F6)."""

    width: int = key(128, "channels of the first level", at_least(1))
    multipliers: tuple[int, ...] = key(
        (1, 2, 2, 2), "channels of each level / width", every(at_least(1))
    )
    blocks: int = key(2, "residual blocks per encoder level; the decoder has one more", at_least(1))
    attention: tuple[int, ...] = key(
        (16,), "feature-map sizes in pixels that attend", every(at_least(1), empty=True)
    )
    head_channels: int = key(64, "channels per attention head", at_least(1))
    dtype: Literal["float32", "bfloat16"] = key("float32", "activations; parameters stay float32")

    def check(self, image_size: int) -> None:
        """Raises `ValueError` for levels and heads that do not fit images of that size."""
        levels = len(self.multipliers)
        multiple = 2 ** (levels - 1)
        if image_size % multiple:
            raise ValueError(
                f"data.image_size={image_size}: must be a multiple of {multiple}, because "
                f"model.multipliers={self.multipliers} halves it {levels - 1} times"
            )
        sizes = [image_size >> level for level in range(levels)]
        lost = [size for size in self.attention if size not in sizes]
        if lost:
            raise ValueError(
                f"model.attention={self.attention}: no level has size {lost[0]}; with "
                f"data.image_size={image_size} the sizes are {', '.join(map(str, sizes))} "
                "(() for none)"
            )
        # The middle of the network attends whatever `attention` says.
        attending = [self.multipliers[sizes.index(size)] for size in self.attention]
        for multiplier in [*attending, self.multipliers[-1]]:
            channels = self.width * multiplier
            if channels % min(self.head_channels, channels):
                raise ValueError(
                    f"model.head_channels={self.head_channels}: must divide the {channels} "
                    f"channels of every level that attends (model.width={self.width} x "
                    f"{multiplier})"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """FunLoRA's class factors: F_y = mean_i alpha_i f_i(A_y, B_y)."""

    family: FamilyName = key("cosine_learnable", "the functions f_i; the paper's best is default")
    functions: int = key(10, "p, the number of functions (vanilla families have one)", at_least(1))
    layers: str = key("all", "all | 40-54 | 0,3,7 | top:K@WORKDIR (importance of that run)")
    sigma: float = key(0.3, "spread of A and B at the start (ours)", above(0))
    warm_start: Literal["class", "mean", "none"] = key(
        "class", "new classes start from a learned class, from their rescaled mean, or from noise"
    )
    learning_rate: float = key(
        2e-4, "of the factors while the trunk trains, phase 1 (ours)", above(0)
    )
    strategy: Literal["auto", "map", "loop", "vmap", "taps"] = key(
        "auto",
        "map (class after class, least memory) | loop | vmap | taps; auto = by platform",
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """The probability path x_t = (1 - t) x0 + t z."""

    time: Literal["uniform", "logit_normal"] = key("uniform", "distribution of t while training")
    coupling: Literal["independent", "class_ot"] = key(
        "independent", "class_ot: optimal transport of noise to images inside each class (ours)"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """Optimisation of one task. Phase 1 is the first task, phase 2 every later one."""

    steps: int = key(100_000, "optimiser steps per task", at_least(1))
    batch_size: int = key(128, "global batch: images over all devices and groups", at_least(1))
    groups: int = key(2, "classes per batch, batch_size / groups images of each", at_least(1))
    learning_rate: float = key(2e-4, "Adam, after warm-up; see adapter.learning_rate", above(0))
    warmup_steps: int = key(5_000, "linear warm-up", at_least(0))
    clip_norm: float = key(1.0, "global gradient norm over what trains", above(0))
    ema_decay: float = key(
        0.9999, "average of the weights, kept after the task; 0 = off", from_to_below(0, 1)
    )
    dropout: float = key(0.1, "inside residual blocks", from_to_below(0, 1))

    def check(self, name: str) -> None:
        """Raises `ValueError` for values of the section `name` that do not fit each other."""
        if self.batch_size % self.groups:
            raise ValueError(
                f"{name}.batch_size={self.batch_size}: must be a multiple of "
                f"{name}.groups={self.groups}, the classes in a batch"
            )
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"{name}.warmup_steps={self.warmup_steps}: exceeds {name}.steps={self.steps}, so "
                f"the learning rate would never be reached; lower --config.{name}.warmup_steps"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """The ODE solve from noise at t = 0 to images at t = 1."""

    solver: SolverName = key("heun", "euler and midpoint/heun: fixed steps; dopri5: adaptive")
    num_steps: int = key(50, "steps of the fixed-step solvers", at_least(1))
    rtol: float = key(1e-5, "relative tolerance of dopri5, per image", above(0))
    atol: float = key(1e-5, "absolute tolerance of dopri5, per image", above(0))
    chunk: int = key(
        64,
        "images of one class solved together; changes speed, never an image",
        at_least(1),
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """The ResNet-18 that is trained on generated images only and tested on real ones."""

    width: int = key(64, "channels of the first stage", at_least(1))
    epochs: float = key(
        200.0, "passes over the plain-size set; oversampling keeps the steps", above(0)
    )
    batch_size: int = key(256, "global batch", at_least(1))
    learning_rate: float = key(0.1, "SGD with momentum 0.9 and cosine decay", above(0))
    weight_decay: float = key(5e-4, "on convolution and dense kernels", at_least(0))
    crop: int = key(4, "random crop with this padding in pixels; 0 = off", at_least(0))
    flip: bool = key(True, "random horizontal flip")
    images_per_class: int = key(
        0, "generated per class; 0 = as many as the class really has", at_least(0)
    )
    oversample: float = key(
        1.0, "generated images per class relative to images_per_class", above(0)
    )
    current_task: Literal["synthetic", "real"] = key(
        "synthetic", "what the judge sees of the newest task; never mix the two in one table"
    )
    repeats: int = key(
        1, "judges per task with different seeds; their mean is the accuracy", at_least(1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRun(Run):
    """A continual generator: what every generative method shares."""

    data: TrainingData = section(TrainingData)
    model: UNet = section(UNet)
    flow: Flow = section(Flow)
    phase1: Phase = section(Phase)
    phase2: Phase = section(Phase)
    sample: Sample = section(Sample)
    judge: Judge = section(Judge)

    def check(self) -> None:
        if self.stream.scenario == "dil":
            raise ValueError(
                "stream.scenario='dil': a generator learns new classes; accepted is cil"
            )
        self.model.check(self.data.image_size)
        self.phase1.check("phase1")
        self.phase2.check("phase2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunLoRARun(GeneratorRun):
    """FunLoRA; also its joint upper bound with `stream.joint`."""

    method: Literal["funlora"] = key("funlora", "the method")
    adapter: Adapter = section(Adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRun(GeneratorRun):
    """Class embedding, every parameter trained on in every task: the lower bound."""

    method: Literal["finetune"] = key("finetune", "the method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What generative replay remembers."""

    images_per_class: int = key(
        0, "own samples kept per old class; 0 = as many as were real", at_least(0)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayRun(GeneratorRun):
    """As finetune, but each task also trains on the model's own samples of old classes."""

    method: Literal["generative_replay"] = key("generative_replay", "the method")
    replay: Replay = section(Replay)
