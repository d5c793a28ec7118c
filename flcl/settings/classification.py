"""Keys of the continual classifiers on a pre-trained ViT."""

import dataclasses
from typing import Literal

from flcl.settings.classifier import kept, ranks
from flcl.settings.classifier.adapters import FLoRA, LowRank, Prompt, RankSelection, TaskLoRAs
from flcl.settings.classifier.heads import (
    Drift,
    FrozenHeads,
    Gaussian,
    HeadName,
    Heads,
    Memory,
    Ridge,
    SolvedHead,
)
from flcl.settings.classifier.training import HeadTrain, Testing, Train
from flcl.settings.classifier.vit import AdaptedViT, FrozenViT, TrainedViT, ViT
from flcl.settings.keys import (
    key,
    section,
)
from flcl.settings.shared import Run, Stream, TrainingData


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRun(Run):
    """The keys that every classification method shares."""

    stream: Stream = section(Stream)
    model: ViT = section(ViT)
    train: Testing = section(Testing)
    head: HeadName = key("lda", "the head whose answers are those of the method")
    heads: Heads = section(Heads)
    ridge: Ridge = section(Ridge)
    gaussian: Gaussian = section(Gaussian)

    def check(self) -> None:
        self.stream.check()
        self.model.check(self.data.image_size)
        self.heads.check()
        kept.check(self)

    @property
    def kept_blocks(self) -> int:
        """The number of first blocks whose output is kept for each image; 0 = images are read."""
        return kept.blocks(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenRun(ClassifierRun):
    """A head on frozen features: nothing trains."""

    method: Literal["frozen"] = key("frozen", "the method")
    model: FrozenViT = section(FrozenViT)
    head: SolvedHead = key("lda", "the head whose answers are those of the method")
    heads: FrozenHeads = section(FrozenHeads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassMeanRun(FrozenRun):
    """The nearest mean of frozen features: `frozen` with another head."""

    method: Literal["class_mean"] = key("class_mean", "the method")
    head: SolvedHead = key("class_mean", "the head whose answers are those of the method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingRun(ClassifierRun):
    """The keys of methods that change the features while they learn."""

    drift: Drift = section(Drift)
    memory: Memory = section(Memory)

    def check(self) -> None:
        super().check()
        self.memory.check(self.drift, self.stream.scenario)
        if self.drift.sha256 and not self.drift.images:
            raise ValueError(
                f"drift.sha256={self.drift.sha256!r}: drift.images is empty, so there is nothing "
                "to compare"
            )
        if self.drift.images and not self.fits_map:
            key = (
                "memory.use='statistics'"
                if self.drift.correction != "none"
                else "drift.correction='none'"
            )
            raise ValueError(
                f"drift.images={self.drift.images!r}: {key} fits no map that could use them; leave "
                "drift.images empty"
            )

    @property
    def makes_anew(self) -> bool:
        """Whether the statistics of old classes are made anew from samples after each task."""
        return bool(self.memory.generator) and self.memory.use == "statistics"

    @property
    def fits_map(self) -> bool:
        """Whether a map takes old statistics to the features that a task has moved."""
        return self.drift.correction != "none" and not self.makes_anew


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbeRun(ClassifierRun):
    """Only the linear head trains, on frozen features."""

    method: Literal["linear_probe"] = key("linear_probe", "the method")
    data: TrainingData = section(TrainingData)
    model: FrozenViT = section(FrozenViT)
    train: HeadTrain = section(HeadTrain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTFinetuneRun(MovingRun):
    """Every parameter trains in every task, so the trunk is stored in float32."""

    method: Literal["vit_finetune"] = key("vit_finetune", "the method")
    data: TrainingData = section(TrainingData)
    model: TrainedViT = section(TrainedViT)
    train: Train = section(Train)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRARun(MovingRun):
    """One plain LoRA that every task trains further."""

    method: Literal["lora_sequential"] = key("lora_sequential", "the method")
    data: TrainingData = section(TrainingData)
    model: AdaptedViT = section(AdaptedViT)
    train: Train = section(Train)
    lora: LowRank = section(LowRank)

    def check(self) -> None:
        super().check()
        self.lora.check(self.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDLoRARun(LoRARun):
    """SD-LoRA: one LoRA per task, with separate direction and magnitude."""

    method: Literal["sd_lora"] = key("sd_lora", "the method")
    lora: TaskLoRAs = section(TaskLoRAs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FMLoRARun(MovingRun):
    """FM-LoRA; also its joint upper bound with `stream.joint`."""

    method: Literal["fmlora"] = key("fmlora", "the method")
    data: TrainingData = section(TrainingData)
    model: AdaptedViT = section(AdaptedViT)
    train: Train = section(Train)
    lora: FLoRA = section(FLoRA)
    rank: RankSelection = section(RankSelection)
    prompt: Prompt = section(Prompt)

    def check(self) -> None:
        super().check()
        self.lora.check(self.model)
        rank_selector(self)


def rank_selector(run: FMLoRARun) -> tuple[str, float]:
    """`(kind, number)` of `rank.selector`: see `forms.ranks.parsed`, which raises `ValueError`."""
    name = "lora.capacity" if run.lora.capacity else "lora.rank"
    return ranks.parsed(run.rank, run.lora.columns, name)
