"""Keys of the ODE solver."""

import dataclasses
from typing import Literal

from flcl.settings.generator import grids
from flcl.settings.keys import (
    above,
    at_least,
    from_to,
    key,
)
from flcl.settings.shared import BATCH

SolverName = Literal["euler", "midpoint", "heun", "dopri5"]


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
class GuidedSample(Sample):
    """FunLoRA also has a velocity without a class."""

    guidance: float = key(
        1.0,
        "v0 + guidance (v - v0), with v0 of the trunk without factors (ours); 1 = off",
        from_to(0, 100),
    )
