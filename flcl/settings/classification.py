"""Keys of the continual classifiers on a pre-trained ViT."""

import dataclasses
from typing import Literal, NamedTuple

from flcl.settings.keys import key, section
from flcl.settings.shared import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT:
    """The pre-trained vision transformer; `data.image_size` is the size it sees."""

    variant: str = key("B/16", "SIZE/PATCH: Nano, Ti, S, B or L, and the side of a patch in pixels")
    weights: str = key(
        "random", "tiny (embedded) | random | a .npz or .safetensors file | hub:NAME"
    )
    sha256: str = key("", "the weights file must have this SHA-256; empty = any")
    layer_scale: bool = key(False, "learned scale after each branch, as DINOv2 has")
    layer_norm_eps: float = key(1e-6, "added to the variance by every layer norm")
    normalize: Literal["weights", "half", "imagenet", "unit"] = key(
        "weights",
        "weights: as they were trained; half: [-1,1]; imagenet: mean and std; unit: [0,1]",
    )
    dtype: Literal["float32", "bfloat16"] = key("float32", "activations; softmax and norms float32")
    trunk_dtype: Literal["float32", "bfloat16"] = key(
        "float32", "storage of a trunk that is frozen"
    )
    remat: Literal["none", "cheap", "blocks"] = key(
        "cheap", "activations computed again in the backward pass: what costs little, or all"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Optimisation of one task; the same for all tasks."""

    epochs: float = key(20.0, "passes over the images of a task")
    batch_size: int = key(128, "global batch: images over all devices")
    optimizer: Literal["adam", "sgd"] = key("adam", "sgd has momentum 0.9")
    learning_rate: float = key(5e-4, "of everything but the head")
    head_learning_rate: float = key(1e-3, "of the linear head")
    schedule: Literal["cosine", "constant"] = key("cosine", "cosine falls to 0 within each task")
    warmup: float = key(0.0, "share of the task's steps with a linearly rising learning rate")
    clip_norm: float = key(1.0, "global gradient norm over what trains")
    min_crop: float = key(0.05, "random resized crop: smallest share of the area; 1 = off")
    eval_batch_size: int = key(128, "images per forward pass of the evaluation, over all devices")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank:
    """Where low-rank adapters sit, and how large they are."""

    rank: int = key(10, "r, columns of the factors (M3)")
    sites: tuple[str, ...] = key(("q", "v"), "of q, k, v, proj, fc1, fc2 in every block (M2)")
    blocks: str = key("all", "all | 0-5 | 0,3,7")
    scale: float = key(1.0, "factor of the update; SD-LoRA and InfLoRA have none (M2)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FLoRA(LowRank):
    """F-LoRA: dW_t = A M_t N_t' B' in one shared subspace."""

    combine: Literal["sum", "last", "scaled"] = key(
        "sum", "of the tasks' cores: their sum, the newest alone, or one learned scale each (M1)"
    )
    later_factor: float = key(
        1.0, "learning rate of M and N after the first task, relative to the first (M6)"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSelection:
    """DRS: the rank of each task after the first, from its complexity H (M3-M5)."""

    selector: str = key("centred", "centred | literal (as printed) | full | fixed:R")
    candidates: tuple[int, ...] = key((2, 4, 6, 8, 10), "ranks to choose from")
    temperature: float = key(1.0, "of the Gumbel-Softmax at the start of a task")
    final_temperature: float = key(0.1, "at the end of the schedule")
    schedule: float = key(1 / 3, "share of a task's steps until the rank is fixed")
    penalty: float = key(0.01, "weight of E[r] / r in the loss")
    learning_rate: float = key(1e-2, "of the selector's w and b (ours)")
    probe_epochs: float = key(1.0, "length of the preliminary run")
    holdout: float = key(0.1, "share of the task's training images that measures H")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """DMP: one prompt that every task shares and updates (M7)."""

    tokens: int = key(10, "m, prepended after the positions are added; 0 = off")
    sigma: float = key(0.02, "spread of the truncated normal at the start")
    later_factor: float = key(1.0, "learning rate in tasks after the first, relative to the first")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRun(Run):
    """A continual classifier: what every classification method shares."""

    method: Literal[
        "fmlora", "linear_probe", "class_mean", "vit_finetune", "lora_sequential", "sd_lora"
    ] = key("fmlora", "the method")
    model: ViT = section(ViT)
    train: Train = section(Train)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRARun(ClassifierRun):
    """One plain LoRA trained on in every task, or SD-LoRA: one direction per task."""

    lora: LowRank = section(LowRank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FMLoRARun(ClassifierRun):
    """FM-LoRA; also its joint upper bound with `stream.joint`."""

    lora: FLoRA = section(FLoRA)
    rank: RankSelection = section(RankSelection)
    prompt: Prompt = section(Prompt)


class Sizes(NamedTuple):
    """Sizes that a `model.variant` stands for."""

    width: int
    depth: int
    heads: int
    patch: int


VIT_SIZES = {
    "Nano": (64, 6, 4),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}


def vit_sizes(variant: str) -> Sizes:
    """Sizes of `SIZE/PATCH`, such as `B/16`; raises `ValueError` for another form."""
    size, _, patch = variant.partition("/")
    if size not in VIT_SIZES or not patch.isdecimal() or not int(patch):
        raise ValueError(
            f"model.variant={variant!r}: accepted is SIZE/PATCH, such as B/16, with SIZE one of "
            f"{', '.join(VIT_SIZES)}"
        )
    return Sizes(*VIT_SIZES[size], int(patch))
