"""Keys of the class factors of FunLoRA."""

import dataclasses
from typing import Literal

from flcl.settings.generator.sampling import Sample
from flcl.settings.keys import (
    above,
    at_least,
    key,
)

FamilyName = Literal["vanilla_add", "vanilla_mult", "shift", "power", "cosine", "cosine_learnable"]

FOUND_LAYERS = ("top:", "bottom:", "random:")
"""Beginnings of `adapter.layers` in the place of which a run stores the layers that it found."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """FunLoRA's class factors: F_y = mean_i alpha_i f_i(A_y, B_y)."""

    family: FamilyName = key("cosine_learnable", "the functions f_i; default: best of the paper")
    functions: int = key(
        10, "p, number of functions (vanilla families have one)", at_least(1, 10_000)
    )
    layers: str = key(
        "all",
        "adapted layers: all | 40-54 | 0,3,7 | top:K@WORKDIR (importance in that run) | "
        "bottom:K@WORKDIR | random:K@N (drawn from the number N)",
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
    record_ranks: int = key(
        0,
        "classes of a task whose effective ranks of F are recorded with the loss, in every adapted "
        "convolution; 0 = off",
        at_least(0),
        free=True,
    )
    strategy: Literal["auto", "map", "loop", "vmap", "taps"] = key(
        "auto",
        "map (one class at a time, least memory) | loop | vmap | taps; auto = by platform",
        free=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Straighten:
    """A stage after the training of a task: its factors learn straight paths (reflow, ours)."""

    steps: int = key(
        0,
        "steps on pairs of noise and the trained model's images, factors of new classes only, so "
        "that one or two evaluations suffice; 0 = off",
        at_least(0),
    )
    pairs: int = key(500, "pairs per class", at_least(1, 1_000_000))
    num_steps: int = key(8, "steps of midpoint for the image of a pair", at_least(1, 1_000_000))
    learning_rate: float = key(
        0.0, "of Adam for the factors, without a warm-up; 0 = that of phase 2", at_least(0)
    )

    @property
    def teacher(self) -> Sample:
        """How the trained model draws the images of the pairs."""
        return Sample(solver="midpoint", num_steps=self.num_steps)
