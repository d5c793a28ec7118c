"""Keys of the pre-trained vision transformer, and the sizes of its variants."""

import dataclasses
import re
from typing import Literal, NamedTuple

from flcl.settings.keys import above, from_to_below, key


class Sizes(NamedTuple):
    """Sizes of a `model.variant`."""

    width: int
    depth: int
    heads: int
    patch: int


VIT_SIZES = {
    "Pico": (64, 2, 4),  # for tests: two blocks compile in a third of the time of six
    "Nano": (64, 6, 4),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}

RANDOM_VARIANT = "B/16"
"""The variant of random weights, unless `model.variant` is set."""

MOST_REGISTERS = 1_024
"""The published models have 4; more than this is a mistake."""

NO_RESIZE = "bicubic"
"""The stored value of `model.position_resize` if nothing is resized; older runs have it, too."""


def vit_sizes(variant: str) -> Sizes:
    """Sizes of `SIZE/PATCH`, such as `B/16`; raises `ValueError` for another form."""
    size, _, patch = variant.partition("/")
    # Four digits are enough for every picture, and Python refuses to convert thousands of them.
    if size not in VIT_SIZES or not re.fullmatch("[1-9][0-9]{0,3}", patch):
        raise ValueError(
            f"model.variant={variant!r}: accepted is SIZE/PATCH, such as B/16, with SIZE one of "
            f"{', '.join(VIT_SIZES)}; or weights, the sizes of the weights file"
        )
    return Sizes(*VIT_SIZES[size], int(patch))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT:
    """The pre-trained vision transformer; its input has the size `data.image_size`."""

    # The values for a method without these keys: its trunk is not frozen, or has no gradient.
    trunk_dtype = "float32"
    remat = "cheap"
    keep_lower = False

    variant: str = key(
        "weights",
        "SIZE/PATCH: Pico, Nano, Ti, S, B or L, and the side of a patch in pixels; weights: as in "
        "the weights file, B/16 for random weights",
    )
    weights: str = key(
        "random", "tiny (embedded) | random | a .npz or .safetensors file | a folder | hub:NAME"
    )
    sha256: str = key("", "the weights file must have this SHA-256; empty = any")
    layer_scale: Literal[True, False, None] = key(
        None,
        "True, False: learned scale after each branch, as in DINOv2; not set: as in the weights "
        "file",
    )
    registers: int = key(
        0,
        "register tokens, as in newer DINOv2; 0: as many as the weights file has",
        from_to_below(0, MOST_REGISTERS + 1, f"0 to {MOST_REGISTERS}"),
    )
    position_resize: Literal[
        "weights", "bicubic", "bicubic_antialias", "bicubic_offset", "bilinear"
    ] = key(
        "weights",
        "how positions are resized to another grid; weights: as the family of the file does it",
    )
    features: str = key(
        "cls",
        "what the heads see: cls, the class token; cls+mean, also the mean of the patch tokens; "
        "layers:K, the class tokens of the last K blocks side by side",
    )
    layer_norm_eps: float = key(1e-6, "every layer norm adds it to the variance", above(0))
    normalize: Literal["weights", "half", "imagenet", "unit"] = key(
        "weights",
        "weights: as in their training; half: [-1,1]; imagenet: mean and std; unit: [0,1]",
    )
    dtype: Literal["float32", "bfloat16"] = key(
        "float32", "type of activations; softmax and norms always use float32"
    )

    @property
    def sizes(self) -> Sizes:
        """The sizes of the network.

        Raises `ValueError` for an invalid variant, and while only the weights file knows it.
        """
        if not self.has_sizes:
            raise ValueError(
                f"model.variant='weights': the sizes are in model.weights={self.weights!r}, which "
                "is not read here; set model.variant, such as B/16"
            )
        return vit_sizes(RANDOM_VARIANT if self.variant == "weights" else self.variant)

    @property
    def feature_blocks(self) -> int:
        """Number of last blocks whose class tokens are the features: K of `layers:K`, else 1.

        Raises `ValueError` for features of another form.
        """
        if self.features in ("cls", "cls+mean"):
            return 1
        kind, _, number = self.features.partition(":")
        if kind != "layers" or not re.fullmatch("[1-9][0-9]{0,3}", number):
            raise ValueError(
                f"model.features={self.features!r}: accepted are cls, cls+mean, and layers:K with "
                "K blocks, such as layers:4"
            )
        return int(number)

    @property
    def feature_width(self) -> int:
        """Width of the features: d, 2 d or K d."""
        parts = 2 if self.features == "cls+mean" else self.feature_blocks
        return parts * self.sizes.width

    @property
    def has_sizes(self) -> bool:
        """Whether the sizes are known without a weights file."""
        return self.variant != "weights" or self.weights == "random"

    def of_random_weights(self) -> "ViT":
        """These settings with a value for all that a weights file would decide."""
        return dataclasses.replace(
            self,
            variant=RANDOM_VARIANT if self.variant == "weights" else self.variant,
            layer_scale=bool(self.layer_scale),
            # Random weights have no normalisation of their own, so we choose one.
            normalize="half" if self.normalize == "weights" else self.normalize,
            position_resize=NO_RESIZE
            if self.position_resize == "weights"
            else self.position_resize,
        )

    def check(self, image_size: int) -> None:
        """Raises `ValueError` for a size that patches do not fill, and for a hash without file."""
        if self.weights == "random" and self.sha256:
            raise ValueError(
                f"model.sha256={self.sha256!r}: model.weights='random' reads no file to compare"
            )
        blocks = self.feature_blocks
        if not self.has_sizes:
            return  # checked again when the file is read
        if blocks > self.sizes.depth:
            raise ValueError(
                f"model.features={self.features!r}: model.variant={self.variant!r} has "
                f"{self.sizes.depth} blocks"
            )
        patch = self.sizes.patch
        if image_size % patch:
            nearest = max(patch, round(image_size / patch) * patch)
            raise ValueError(
                f"data.image_size={image_size}: must be a multiple of {patch}, the patch of "
                f"model.variant={self.variant!r}; the nearest is {nearest}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenViT(ViT):
    """A transformer that never trains: it may be stored in fewer bytes."""

    trunk_dtype: Literal["float32", "bfloat16"] = key(
        "float32", "type in which the frozen trunk is stored"
    )
    keep_lower: bool = key(
        False,
        "compute the blocks below all that trains once for each image and keep their outputs in "
        "memory; needs data.flip=False and train.min_crop=1",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedViT(ViT):
    """A transformer that gradients pass through: it stores activations for them."""

    remat: Literal["none", "cheap", "blocks"] = key(
        "cheap", "activations computed again in the backward pass: none, cheap ones or all"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptedViT(FrozenViT, TrainedViT):
    """A frozen transformer with adapters inside, which the gradients pass through."""
