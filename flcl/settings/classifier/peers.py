"""Keys of the classifiers that FM-LoRA is compared with, beside the plain baselines."""

import dataclasses
from typing import Literal

from flcl.settings.classification import ClassifierRun, LoRARun, MovingRun, ViTFinetuneRun
from flcl.settings.classifier.adapters import LowRank
from flcl.settings.classifier.heads import Drift, FrozenHeads, HeadName, SolvedHead
from flcl.settings.classifier.training import Train
from flcl.settings.classifier.vit import AdaptedViT
from flcl.settings.keys import (
    above,
    above_up_to,
    at_least,
    from_to,
    from_to_below,
    key,
    section,
    selected,
)
from flcl.settings.shared import BATCH, EPOCHS, TrainingData


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstTrain(Train):
    """Training in the first task only: then there are no old classes."""

    loss: Literal["local", "cosine"] = key(
        "local", "local: cross-entropy over the task's classes; cosine: CosFace over them"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstSessionRun(ClassifierRun):
    """A LoRA that the first task trains; then the network is frozen, and so no head trains."""

    method: Literal["first_session"] = key("first_session", "the method")
    data: TrainingData = section(TrainingData)
    model: AdaptedViT = section(AdaptedViT)
    train: FirstTrain = section(FirstTrain)
    lora: LowRank = section(LowRank)
    head: SolvedHead = key("lda", "the head whose answers are those of the method")
    heads: FrozenHeads = section(FrozenHeads)

    def check(self) -> None:
        super().check()
        self.lora.check(self.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orthogonal(LowRank):
    """InfLoRA: a LoRA per task in the directions that old tasks do not use."""

    sites: tuple[str, ...] = key(
        ("k", "v"), "adapted maps in each block: some of q, k, v, proj, fc1, fc2"
    )
    energy: float = key(
        0.98, "share of the inputs' energy that the directions of a task hold", above_up_to(0, 1)
    )
    final_energy: float = key(
        1.0, "the same after the last task; between them it grows with the tasks", above_up_to(0, 1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfLoRARun(LoRARun):
    """InfLoRA: the inputs of a task fix one factor of its LoRA before it trains."""

    method: Literal["inflora"] = key("inflora", "the method")
    lora: Orthogonal = section(Orthogonal)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """Training of the linear head alone, after a task, on features drawn from Gaussians (SLCA)."""

    epochs: float = key(5.0, "steps for each class learned so far", EPOCHS)
    batch_size: int = key(256, "features that are drawn for each step", BATCH)
    learning_rate: float = key(1e-2, "SGD with momentum 0.9; a cosine falls to 0", above(0))
    weight_decay: float = key(5e-4, "of the head", at_least(0))
    temperature: float = key(0.1, "tau of the normalised logits; 0 = plain logits", at_least(0))
    decay: float = key(
        0.1,
        "means are multiplied by 1 - decay (1 - k / t) for a class of task k of t, as in public "
        "code",
        from_to(0, 1),
    )
    covariance: Literal["shared", "class"] = key(
        "shared",
        "shared: one for all classes, as in SLCA++; class: from gaussian.rank axes of each class; "
        "SLCA has all axes",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalTrain(Train):
    """Training whose loss compares the classes of a task: the alignment compares all."""

    loss: Literal["local", "cosine"] = key(
        "local", "local: cross-entropy over the task's classes; cosine: CosFace over them"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SLCATrain(LocalTrain):
    """A slow trunk and a fast head, as in SLCA."""

    optimizer: Literal["adam", "sgd"] = key("sgd", "sgd has momentum 0.9")
    learning_rate: float = key(1e-4, "learning rate of everything but the head", above(0))
    head_learning_rate: float = key(1e-2, "learning rate of the linear head", above(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SLCARun(ViTFinetuneRun):
    """SLCA: every parameter trains slowly; then the linear head is aligned."""

    method: Literal["slca"] = key("slca", "the method")
    train: SLCATrain = section(SLCATrain)
    head: HeadName = key("linear", "the head whose answers are those of the method")
    align: Alignment = section(Alignment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RSIATTrain(LocalTrain):
    """The losses of RSIAT; the values are those for ImageNet-R in its public code."""

    loss: Literal["local", "cosine"] = key(
        "cosine", "local: cross-entropy over the task's classes; cosine: CosFace over them"
    )
    scale: float = key(50.0, "cosine: s, the factor on cosines", above(0))
    margin: float = key(
        0.2, "cosine: m, taken from the cosine of the right class", from_to_below(0, 1)
    )
    optimizer: Literal["adam", "sgd"] = key("sgd", "sgd has momentum 0.9")
    learning_rate: float = key(6.7e-3, "learning rate of everything but the head", above(0))
    head_learning_rate: float = key(6.7e-3, "learning rate of the linear head", above(0))
    align: float = key(
        3.0, "later tasks: weight of the mean square by which features move", at_least(0)
    )
    steer: float = key(0.5, "first task: weight of the loss of pairs", at_least(0))
    steer_warmup: float = key(
        0.13, "share of the first task in which that weight rises from 0", from_to_below(0, 1)
    )
    steer_margin: float = key(
        0.4, "pairs of two classes with a smaller cosine count 0", from_to(0, 1)
    )
    steer_apart: float = key(1.5, "weight of pairs of two classes", at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """An adapter with one hidden layer beside the MLP of a block."""

    width: int = key(64, "hidden units", at_least(1, 65_536))
    scale: float = key(0.1, "factor on its output", above(0))
    blocks: str = key("all", "adapted blocks: all | 0-5 | 0,3,7")

    def of_depth(self, depth: int) -> tuple[int, ...]:
        """Indices of the adapted blocks; raises `ValueError` for an invalid text."""
        blocks = selected(self.blocks, depth)
        if blocks is None:
            raise ValueError(
                f"bottleneck.blocks={self.blocks!r}: accepted are all, a range such as 0-5 or a "
                f"list such as 0,3,7 of the blocks 0 to {depth - 1}"
            )
        return blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftDrift(Drift):
    """RSIAT moves old means by the shift of the task's images."""

    correction: Literal["auto", "none", "shift", "linear"] = key(
        "shift",
        "shift: the change of the mean; linear: a linear map; auto: linear from 2 d images, shift "
        "below",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineAlignment(Alignment):
    """The alignment of SSIAT and RSIAT: logits are cosines times train.scale."""

    epochs: float = key(10.0, "steps for each class learned so far", EPOCHS)
    learning_rate: float = key(6.7e-3, "SGD with momentum 0.9; a cosine falls to 0", above(0))
    weight_decay: float = key(1e-6, "of the head", at_least(0))
    temperature: float = key(0.0, "tau of the normalised logits; 0 = plain logits", at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RSIATRun(MovingRun):
    """RSIAT: one adapter beside the MLPs that every task trains; then the head is aligned."""

    method: Literal["rsiat"] = key("rsiat", "the method")
    data: TrainingData = section(TrainingData)
    model: AdaptedViT = section(AdaptedViT)
    train: RSIATTrain = section(RSIATTrain)
    bottleneck: Bottleneck = section(Bottleneck)
    head: HeadName = key("linear", "the head whose answers are those of the method")
    drift: ShiftDrift = section(ShiftDrift)
    align: CosineAlignment = section(CosineAlignment)

    def check(self) -> None:
        super().check()
        if self.model.has_sizes:
            self.bottleneck.of_depth(self.model.sizes.depth)
