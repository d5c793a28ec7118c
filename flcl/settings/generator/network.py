"""Keys of the flow-matching U-Net."""

import dataclasses
from typing import Literal

from flcl.settings.keys import (
    at_least,
    every,
    key,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
    """The flow-matching U-Net; its parameter counts are those of the paper (F6)."""

    width: int = key(128, "channels of the first level", at_least(1, 65_536))
    multipliers: tuple[int, ...] = key(
        (1, 2, 2, 2), "channels of each level / width", every(at_least(1, 1024))
    )
    blocks: int = key(
        2, "residual blocks per encoder level; the decoder has one more", at_least(1, 100)
    )
    attention: tuple[int, ...] = key(
        (16,), "sizes in pixels of the feature maps with attention", every(at_least(1), empty=True)
    )
    head_channels: int = key(64, "channels per attention head", at_least(1))
    dtype: Literal["float32", "bfloat16"] = key(
        "float32", "type of activations; parameters stay float32"
    )

    def check(self, image_size: int) -> None:
        """Raises `ValueError` for levels and heads that do not fit `image_size`."""
        levels = len(self.multipliers)
        multiple = 2 ** (levels - 1)
        if image_size % multiple:
            raise ValueError(
                f"data.image_size={image_size}: must be a multiple of {multiple}, because "
                f"model.multipliers={self.multipliers} halves it {levels - 1} times"
            )
        sizes = [image_size >> level for level in range(levels)]
        lost = [size for size in self.attention if size not in sizes]
        if lost:
            raise ValueError(
                f"model.attention={self.attention}: no level has size {lost[0]}; with "
                f"data.image_size={image_size} the sizes are {', '.join(map(str, sizes))} "
                "(() for none)"
            )
        # The middle of the network always has attention.
        attending = [self.multipliers[sizes.index(size)] for size in self.attention]
        for multiplier in [*attending, self.multipliers[-1]]:
            channels = self.width * multiplier
            if channels % min(self.head_channels, channels):
                raise ValueError(
                    f"model.head_channels={self.head_channels}: must divide the {channels} "
                    f"channels of every level with attention (model.width={self.width} x "
                    f"{multiplier})"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk(UNet):
    """The U-Net of FunLoRA, whose trunk may come from a file."""

    weights: str = key(
        "",
        "safetensors file of a trunk (flcl classes export --trunk), frozen from the first task "
        "(F13); empty = task 1 trains it",
    )
    sha256: str = key("", "SHA-256 of the trunk; written by the run; another one is refused")
