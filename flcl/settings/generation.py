"""Keys of the continual generators."""

import dataclasses
from typing import Literal

from flcl.settings.generator import grids
from flcl.settings.keys import (
    above,
    above_up_to,
    at_least,
    every,
    from_to,
    from_to_below,
    key,
    section,
)
from flcl.settings.shared import BATCH, EPOCHS, Run, TrainingData

FamilyName = Literal["vanilla_add", "vanilla_mult", "shift", "power", "cosine", "cosine_learnable"]
SolverName = Literal["euler", "midpoint", "heun", "dopri5"]

METRICS = ("fd", "kd", "prdc", "copies")
"""What can be measured of generated images beside real ones; see `judge.metrics`."""

FEATURES = ("judge", "vit:FILE", "inception:FILE")
"""The forms of `judge.features`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """The flow-matching U-Net; its parameter counts are those of the paper (F6)."""

    width: int = key(128, "channels of the first level", at_least(1, 65_536))
    multipliers: tuple[int, ...] = key(
        (1, 2, 2, 2), "channels of each level / width", every(at_least(1, 1024))
    )
    blocks: int = key(
        2, "residual blocks per encoder level; the decoder has one more", at_least(1, 100)
    )
    attention: tuple[int, ...] = key(
        (16,), "sizes in pixels of the feature maps with attention", every(at_least(1), empty=True)
    )
    head_channels: int = key(64, "channels per attention head", at_least(1))
    dtype: Literal["float32", "bfloat16"] = key(
        "float32", "type of activations; parameters stay float32"
    )

    def check(self, image_size: int) -> None:
        """Raises `ValueError` for levels and heads that do not fit `image_size`."""
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
        # The middle of the network always has attention.
        attending = [self.multipliers[sizes.index(size)] for size in self.attention]
        for multiplier in [*attending, self.multipliers[-1]]:
            channels = self.width * multiplier
            if channels % min(self.head_channels, channels):
                raise ValueError(
                    f"model.head_channels={self.head_channels}: must divide the {channels} "
                    f"channels of every level with attention (model.width={self.width} x "
                    f"{multiplier})"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """FunLoRA's class factors: F_y = mean_i alpha_i f_i(A_y, B_y)."""

    family: FamilyName = key("cosine_learnable", "the functions f_i; default: best of the paper")
    functions: int = key(
        10, "p, number of functions (vanilla families have one)", at_least(1, 10_000)
    )
    layers: str = key(
        "all", "adapted layers: all | 40-54 | 0,3,7 | top:K@WORKDIR (importance in that run)"
    )
    sigma: float = key(0.3, "initial standard deviation of A and B (ours)", above(0))
    warm_start: Literal["class", "first", "mean", "none"] = key(
        "class",
        "new classes start from a learned class, one of the first task (ours: then later tasks do "
        "not depend on each other), the rescaled class mean, or noise",
    )
    learning_rate: float = key(
        2e-4, "learning rate of the factors in phase 1, while the trunk trains (ours)", above(0)
    )
    strategy: Literal["auto", "map", "loop", "vmap", "taps"] = key(
        "auto",
        "map (one class at a time, least memory) | loop | vmap | taps; auto = by platform",
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
    """Training of one task. Phase 1 is the first task, phase 2 is every later task."""

    steps: int = key(100_000, "optimiser steps per task", at_least(1))
    batch_size: int = key(128, "global batch: images over all devices and groups", BATCH)
    groups: int = key(2, "classes per batch, with batch_size / groups images each", at_least(1))
    learning_rate: float = key(
        2e-4, "of Adam after the warm-up; see adapter.learning_rate", above(0)
    )
    warmup_steps: int = key(5_000, "steps of the linear warm-up", at_least(0))
    clip_norm: float = key(1.0, "largest global norm of the gradient", above(0))
    ema_decay: float = key(
        0.9999, "decay of the weight average that a task keeps; 0 = off", from_to_below(0, 1)
    )
    dropout: float = key(0.1, "dropout rate inside residual blocks", from_to_below(0, 1))

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
    """How the ODE is solved, from noise at t = 0 to images at t = 1."""

    solver: SolverName = key("heun", "euler and midpoint/heun: fixed steps; dopri5: adaptive")
    num_steps: int = key(50, "steps of the fixed-step solvers", at_least(1, 1_000_000))
    grid: str = key(
        "uniform",
        "times of the fixed steps, u = i / num_steps: uniform: u | cosine: (1 - cos(pi u)) / 2, "
        "short steps at both ends | power:K: u^K (ours)",
    )
    rtol: float = key(1e-5, "relative tolerance of dopri5, per image", above(0))
    atol: float = key(1e-5, "absolute tolerance of dopri5, per image", above(0))
    chunk: int = key(
        64,
        "images of one class solved together; changes the speed, never an image",
        BATCH,
        free=True,
    )

    def check(self) -> None:
        """Raises `ValueError` for times of steps that have no such name."""
        grids.check(self.grid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """The ResNet-18 that is trained on generated images only and tested on real images."""

    width: int = key(64, "channels of the first stage", at_least(1, 16_384))
    stages: int = key(4, "stages of two blocks; 4 = ResNet-18", from_to(1, 4))
    epochs: float = key(200.0, "passes over the images; oversampling does not add steps", EPOCHS)
    batch_size: int = key(256, "global batch", BATCH)
    learning_rate: float = key(0.1, "of SGD with momentum 0.9 and cosine decay", above(0))
    weight_decay: float = key(5e-4, "of convolution and dense kernels", at_least(0))
    crop: int = key(4, "padding in pixels of the random crop; 0 = off", at_least(0))
    flip: bool = key(True, "random horizontal flip")
    images_per_class: int = key(
        0, "generated images per class; 0 = as many as real ones", at_least(0, 1_000_000)
    )
    oversample: float = key(
        1.0, "generated images per class relative to images_per_class", above_up_to(0, 1000)
    )
    current_task: Literal["synthetic", "real"] = key(
        "synthetic", "the judge's images of the newest task; never mix both kinds in one table"
    )
    repeats: int = key(
        1, "judges per task, with different seeds; the accuracy is their mean", at_least(1, 1000)
    )
    metrics: tuple[str, ...] = key(
        METRICS,
        "samples beside real images: some of fd (Frechet distance), kd (kernel distance), prdc "
        "(precision, recall, density, coverage), copies; () = none",
    )
    features: str = key(
        "judge",
        "of these metrics: judge (trained on real images), vit:FILE (weights as in model.weights) "
        "or inception:FILE (weights of torch-fidelity)",
    )

    def check(self) -> None:
        """Raises `ValueError` for names that are no metrics, and for features of another form."""
        if set(self.metrics) - {*METRICS} or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(
                f"judge.metrics={self.metrics}: accepted are some of {', '.join(METRICS)}, each "
                "once; () for none"
            )
        kind, _, file = self.features.partition(":")
        if self.features != "judge" and (kind not in ("vit", "inception") or not file):
            raise ValueError(
                f"judge.features={self.features!r}: accepted are {', '.join(FEATURES)}, with a "
                "file of weights after the colon"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRun(Run):
    """The keys that every generative method shares."""

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
        self.sample.check()
        self.judge.check()
        if self.judge.crop > self.data.image_size:
            raise ValueError(
                f"judge.crop={self.judge.crop}: exceeds data.image_size={self.data.image_size}, so "
                "a crop could show no pixel of the image"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk(UNet):
    """The U-Net of FunLoRA, whose trunk may come from a file."""

    weights: str = key(
        "",
        "safetensors file of a trunk (flcl classes export --trunk), frozen from the first task "
        "(F13); empty = task 1 trains it",
    )
    sha256: str = key("", "SHA-256 of the trunk; written by the run; another one is refused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunLoRARun(GeneratorRun):
    """FunLoRA; also its joint upper bound with `stream.joint`."""

    method: Literal["funlora"] = key("funlora", "the method")
    model: Trunk = section(Trunk)
    adapter: Adapter = section(Adapter)

    def check(self):
        super().check()
        if self.model.sha256 and not self.model.weights:
            raise ValueError(
                f"model.sha256={self.model.sha256!r}: model.weights is empty, so no file is read"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRun(GeneratorRun):
    """A class embedding; every task trains all parameters further: the lower bound."""

    method: Literal["finetune"] = key("finetune", "the method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """Keys of generative replay."""

    images_per_class: int = key(
        0, "generated images per old class; 0 = as many as real ones", at_least(0, 1_000_000)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayRun(GeneratorRun):
    """Like finetune, but each task also trains on images of old classes from the model itself."""

    method: Literal["generative_replay"] = key("generative_replay", "the method")
    replay: Replay = section(Replay)
