"""Keys of the training of a classifier in one task."""

import dataclasses
from typing import Literal

from flcl.settings.keys import (
    above,
    above_up_to,
    at_least,
    from_to_below,
    key,
)
from flcl.settings.shared import BATCH, EPOCHS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Testing:
    """The keys that a method without training reads."""

    eval_batch_size: int = key(128, "images per evaluation batch, over all devices", BATCH)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadTrain(Testing):
    """Training of the linear head in one task; the same for all tasks."""

    epochs: float = key(20.0, "passes over the images of a task", EPOCHS)
    first_epochs: float = key(
        0.0,
        "passes over the images of the first task of several; 0 = train.epochs",
        at_least(0, 1_000_000),
    )
    batch_size: int = key(128, "global batch: images over all devices", BATCH)
    loss: Literal["local", "gaussian", "cosine"] = key(
        "local",
        "local: cross-entropy over the task's classes; gaussian: over all classes so far, old ones "
        "drawn from Gaussians; cosine: CosFace over the task's classes",
    )
    scale: float = key(20.0, "cosine: s, the factor on cosines", above(0))
    margin: float = key(
        0.0, "cosine: m, taken from the cosine of the right class", from_to_below(0, 1)
    )
    optimizer: Literal["adam", "sgd"] = key("adam", "sgd has momentum 0.9")
    head_learning_rate: float = key(1e-3, "learning rate of the linear head", above(0))
    schedule: Literal["cosine", "constant"] = key("cosine", "cosine falls to 0 within each task")
    warmup: float = key(
        0.0, "share of the task's steps in which the learning rate rises", from_to_below(0, 1)
    )
    clip_norm: float = key(1.0, "largest global norm of the gradient", above(0))
    min_crop: float = key(
        0.05, "random resized crop: smallest share of the area; 1 = off", above_up_to(0, 1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(HeadTrain):
    """Training of the head and of other parameters."""

    learning_rate: float = key(5e-4, "learning rate of everything but the head", above(0))
