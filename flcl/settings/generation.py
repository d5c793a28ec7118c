"""The generative methods, each with its keys; the sections are in `generator/`."""

import dataclasses
from typing import Literal

from flcl.settings.generator.factors import Adapter, Straighten
from flcl.settings.generator.judge import Judge
from flcl.settings.generator.network import Trunk, UNet
from flcl.settings.generator.sampling import GuidedSample, Sample
from flcl.settings.generator.training import Flow, Phase
from flcl.settings.keys import (
    at_least,
    key,
    section,
)
from flcl.settings.shared import Run, TrainingData


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
class FunLoRARun(GeneratorRun):
    """FunLoRA; also its joint upper bound with `stream.joint`."""

    method: Literal["funlora"] = key("funlora", "the method")
    model: Trunk = section(Trunk)
    sample: GuidedSample = section(GuidedSample)
    adapter: Adapter = section(Adapter)
    straighten: Straighten = section(Straighten)

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
