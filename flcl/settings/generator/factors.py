"""Keys of the class factors of FunLoRA."""

import dataclasses
from typing import Literal

from flcl.settings.keys import (
    above,
    at_least,
    key,
)

FamilyName = Literal["vanilla_add", "vanilla_mult", "shift", "power", "cosine", "cosine_learnable"]


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
