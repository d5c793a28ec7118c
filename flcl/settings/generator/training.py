"""Keys of the probability path and of the training of a task."""

import dataclasses
from typing import Literal

from flcl.settings.keys import (
    above,
    at_least,
    from_to_below,
    key,
)
from flcl.settings.shared import BATCH


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
