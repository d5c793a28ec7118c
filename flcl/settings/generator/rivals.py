"""Keys of the published replay methods that FunLoRA is compared with."""

import dataclasses
from typing import Literal

from flcl.settings.generation import ReplayRun
from flcl.settings.keys import above, at_least, from_to, key, section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide:
    """The classifier of DDGR, a ResNet that guides all samples."""

    scale: float = key(
        1.0, "factor of the classifier's gradient in the velocity; 0 = off", from_to(0, 1000)
    )
    width: int = key(64, "channels of the classifier's first stage", at_least(1, 16_384))
    stages: int = key(4, "its stages of two blocks; 4 = ResNet-18", from_to(1, 4))
    learning_rate: float = key(1e-3, "of Adam for the classifier (ours)", above(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuideToNew(Guide):
    """The classifier of GUIDE, whose replay is guided towards the new classes."""

    scale: float = key(
        0.5, "factor of the classifier's gradient in the velocity; 0 = off", from_to(0, 1000)
    )
    every: int = key(
        10, "steps of the generator for each step of the classifier in later tasks", at_least(1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointLoss:
    """The classifier of JDCL on the encoder of the U-Net, and the weights of its losses."""

    hidden: int = key(1024, "width of the classifier's hidden layer", at_least(1, 65_536))
    classification: float = key(1e-3, "weight of the cross-entropy of new images", at_least(0))
    distillation: float = key(
        1.0, "weight of the distance to the old velocity on replayed images", at_least(0)
    )
    soft_labels: float = key(
        1e-3, "weight of the cross-entropy with the old answers on replayed images", at_least(0)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDGRRun(ReplayRun):
    """Replay under the guidance of a classifier that trains with the generator (Gao & Liu)."""

    method: Literal["ddgr"] = key("ddgr", "the method")
    guide: Guide = section(Guide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GUIDERun(ReplayRun):
    """A classifier whose replay is guided towards the new classes (Cywinski et al.)."""

    method: Literal["guide"] = key("guide", "the method")
    guide: GuideToNew = section(GuideToNew)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JDCLRun(ReplayRun):
    """One network generates and classifies; the previous one teaches it (Skierś & Deja)."""

    method: Literal["jdcl"] = key("jdcl", "the method")
    jdcl: JointLoss = section(JointLoss)
