"""Keys of low-rank adapters, of the choice of their rank and of the prompt."""

import dataclasses
from typing import Literal

from flcl.settings.classifier.vit import ViT
from flcl.settings.keys import (
    above,
    at_least,
    between,
    every,
    key,
    selected,
)
from flcl.settings.shared import EPOCHS

SITES = ("q", "k", "v", "proj", "fc1", "fc2")
"""Linear maps of a transformer block that can have an adapter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank:
    """The places and the size of low-rank adapters."""

    rank: int = key(10, "r, number of columns of the factors (M3)", at_least(1))
    sites: tuple[str, ...] = key(
        ("q", "v"), "adapted maps in each block: some of q, k, v, proj, fc1, fc2 (M2)"
    )
    blocks: str = key("all", "adapted blocks: all | 0-5 | 0,3,7")
    scale: float = key(
        1.0, "factor on the update; SD-LoRA and InfLoRA have no such factor (M2)", above(0)
    )

    def check(self, model: ViT) -> None:
        """Raises `ValueError` for sites, blocks or a rank that `model.variant` does not have."""
        if not self.sites or len(set(self.sites)) < len(self.sites) or set(self.sites) - {*SITES}:
            raise ValueError(
                f"lora.sites={self.sites}: accepted are one or more of {', '.join(SITES)}, each "
                "once"
            )
        if not model.has_sizes:
            return  # checked again when the file is read
        sizes = model.sizes
        if self.rank > sizes.width:
            raise ValueError(
                f"lora.rank={self.rank}: exceeds the width {sizes.width} of "
                f"model.variant={model.variant!r}"
            )
        self.of_depth(sizes.depth)

    def of_depth(self, depth: int) -> tuple[int, ...]:
        """Indices of the adapted blocks; raises `ValueError` for an invalid text."""
        return vit_blocks(self.blocks, depth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskLoRAs(LowRank):
    """SD-LoRA: one direction per task, with learned magnitudes."""

    magnitudes: Literal["shared", "per_map"] = key(
        "shared",
        "shared: one number per task for all maps, from 0.8 in every task, as in public code; "
        "per_map: one for each map, which starts with the learned length (ours)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FLoRA(LowRank):
    """F-LoRA: dW_t = A M_t N_t' B' in one shared subspace."""

    combine: Literal["sum", "last", "scaled"] = key(
        "sum", "how to combine the tasks' cores: sum, newest only, or learned scales (M1)"
    )
    later_factor: float = key(
        1.0,
        "learning rate of M and N after the first task, relative to the first task (M6)",
        above(0),
    )
    bases: Literal["learned", "gradient"] = key(
        "learned",
        "start of A and B: learned from A random and B = 0, or the largest singular vectors of the "
        "first task's gradient (M6)",
    )
    coverage: bool = key(
        False, "measure before each task how much of its gradient the bases hold (ours)"
    )
    capacity: int = key(
        0,
        "columns to which A and B may grow before later tasks; 0 = lora.rank, they do not (ours)",
        at_least(0),
    )
    grow: float = key(
        0.5, "they grow until they hold this share of the task's gradient (ours)", between(0, 1)
    )

    @property
    def columns(self) -> int:
        """The columns of A and B, also those that are not used yet."""
        return self.capacity or self.rank

    def check(self, model: ViT) -> None:
        """Also raises `ValueError` for a capacity below the rank or above the width."""
        super().check(model)
        if 0 < self.capacity < self.rank:
            raise ValueError(
                f"lora.capacity={self.capacity}: is below lora.rank={self.rank}, the columns of "
                "the first task; 0 = the bases do not grow"
            )
        if model.has_sizes and self.capacity > model.sizes.width:
            raise ValueError(
                f"lora.capacity={self.capacity}: exceeds the width {model.sizes.width} of "
                f"model.variant={model.variant!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSelection:
    """DRS: the rank of each task after the first (M3-M5)."""

    selector: str = key(
        "energy:0.99",
        "energy:0.99: the least rank that keeps this share of the change of the outputs (ours) | "
        "centred | literal (as printed): by the complexity H | holdout:0.01: the least candidate "
        "whose held-out loss / ln(classes) is so close to that of the largest | full | fixed:R",
    )
    candidates: tuple[int, ...] = key((2, 4, 6, 8, 10), "ranks to choose from", every(at_least(1)))
    temperature: float = key(1.0, "Gumbel-Softmax temperature at the start of a task", above(0))
    final_temperature: float = key(0.1, "temperature at the end of the schedule", above(0))
    schedule: float = key(1 / 3, "share of a task's steps until the rank is fixed", between(0, 1))
    penalty: float = key(0.01, "weight of E[r] / r in the loss", at_least(0))
    learning_rate: float = key(1e-2, "learning rate of the selector's w and b (ours)", above(0))
    probe_epochs: float = key(1.0, "epochs of the preliminary run that measures H", EPOCHS)
    holdout: float = key(0.1, "share of training images that is used to measure H", between(0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """DMP: one prompt that every task shares and updates (M7)."""

    tokens: int = key(
        0,
        "m, tokens put before the others after the positions are added; 0 = off (ours)",
        at_least(0, 10_000),
    )
    init: Literal["normal", "mean", "gated"] = key(
        "normal",
        "normal: a small random start, as in other prompts; mean: the mean patch token of the "
        "first task's images is added to it; gated: in each block, a gate that starts at 0",
    )
    sigma: float = key(0.02, "standard deviation of the initial truncated normal", above(0))
    later_factor: float = key(
        1.0, "learning rate after the first task, relative to the first task", at_least(0)
    )
    average: bool = key(
        False, "a task keeps the mean of its prompt and those of all earlier tasks (ours)"
    )


def vit_blocks(text: str, depth: int) -> tuple[int, ...]:
    """Indices of the blocks in `lora.blocks`; raises `ValueError` for an invalid text."""
    blocks = selected(text, depth)
    if blocks is None:
        raise ValueError(
            f"lora.blocks={text!r}: accepted are all, a range such as 0-5 or a list such as 0,3,7 "
            f"of the blocks 0 to {depth - 1}"
        )
    return blocks
