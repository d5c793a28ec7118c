"""Keys of the continual generators."""

import dataclasses
from typing import Literal

from flcl.settings.keys import key, section
from flcl.settings.shared import Run

FamilyName = Literal["vanilla_add", "vanilla_mult", "shift", "power", "cosine", "cosine_learnable"]
SolverName = Literal["euler", "midpoint", "heun", "dopri5"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """The flow-matching U-Net whose counts are those of the paper (F6)."""

    width: int = key(128, "channels of the first level")
    multipliers: tuple[int, ...] = key((1, 2, 2, 2), "channels of each level / width")
    blocks: int = key(2, "residual blocks per encoder level; the decoder has one more")
    attention: tuple[int, ...] = key((16,), "feature-map sizes in pixels that attend")
    head_channels: int = key(64, "channels per attention head")
    dtype: Literal["float32", "bfloat16"] = key("float32", "activations; parameters stay float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """FunLoRA's class factors: F_y = mean_i alpha_i f_i(A_y, B_y)."""

    family: FamilyName = key("cosine_learnable", "the functions f_i; the paper's best is default")
    functions: int = key(10, "p, the number of functions (vanilla families have one)")
    layers: str = key("all", "all | 40-54 | 0,3,7 | top:K@WORKDIR (importance of that run)")
    sigma: float = key(0.3, "spread of A and B at the start (ours)")
    warm_start: Literal["class", "mean", "none"] = key(
        "class", "new classes start from a learned class, from their rescaled mean, or from noise"
    )
    learning_rate: float = key(2e-4, "of the factors while the trunk trains, phase 1 (ours)")
    strategy: Literal["auto", "map", "loop", "vmap", "taps"] = key(
        "auto", "map (class after class, least memory) | loop | vmap | taps; auto = by platform"
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

    steps: int = key(100_000, "optimiser steps per task")
    batch_size: int = key(128, "global batch: images over all devices and groups")
    groups: int = key(2, "classes per batch, batch_size / groups images of each")
    learning_rate: float = key(2e-4, "Adam, after warm-up; see adapter.learning_rate")
    warmup_steps: int = key(5_000, "linear warm-up")
    clip_norm: float = key(1.0, "global gradient norm over what trains")
    ema_decay: float = key(0.9999, "average of the weights, kept after the task; 0 = off")
    dropout: float = key(0.1, "inside residual blocks")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """The ODE solve from noise at t = 0 to images at t = 1."""

    solver: SolverName = key("heun", "euler and midpoint/heun: fixed steps; dopri5: adaptive")
    num_steps: int = key(50, "steps of the fixed-step solvers")
    rtol: float = key(1e-5, "relative tolerance of dopri5, per image")
    atol: float = key(1e-5, "absolute tolerance of dopri5, per image")
    chunk: int = key(64, "images of one class solved together; changes speed, never an image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """The ResNet-18 that is trained on generated images only and tested on real ones."""

    width: int = key(64, "channels of the first stage")
    epochs: float = key(200.0, "passes over the plain-size set; oversampling keeps the steps")
    batch_size: int = key(256, "global batch")
    learning_rate: float = key(0.1, "SGD with momentum 0.9 and cosine decay")
    weight_decay: float = key(5e-4, "on convolution and dense kernels")
    crop: int = key(4, "random crop with this padding in pixels; 0 = off")
    flip: bool = key(True, "random horizontal flip")
    images_per_class: int = key(0, "generated per class; 0 = as many as the class really has")
    oversample: float = key(1.0, "generated images per class relative to images_per_class")
    current_task: Literal["synthetic", "real"] = key(
        "synthetic", "what the judge sees of the newest task; never mix the two in one table"
    )
    repeats: int = key(1, "judges per task with different seeds; their mean is the accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRun(Run):
    """A continual generator: what every generative method shares."""

    method: Literal["funlora", "finetune", "generative_replay"] = key("funlora", "the method")
    model: UNet = section(UNet)
    flow: Flow = section(Flow)
    phase1: Phase = section(Phase)
    phase2: Phase = section(Phase)
    sample: Sample = section(Sample)
    judge: Judge = section(Judge)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunLoRARun(GeneratorRun):
    """FunLoRA; also its joint upper bound with `stream.joint`."""

    adapter: Adapter = section(Adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRun(GeneratorRun):
    """Class embedding, every parameter trained on in every task: the lower bound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What generative replay remembers."""

    images_per_class: int = key(0, "own samples kept per old class; 0 = as many as were real")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayRun(GeneratorRun):
    """As finetune, but each task also trains on the model's own samples of old classes."""

    replay: Replay = section(Replay)
