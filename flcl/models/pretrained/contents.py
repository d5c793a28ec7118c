"""What a weights file contains: its layout, the prefix of its names, the sizes of its network."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flcl import settings
from flcl.models.pretrained import positions
from flcl.models.pretrained.layouts import LAYOUTS, Layout
from flcl.settings.classifier.vit import MOST_REGISTERS, NO_RESIZE, VIT_SIZES

# PyTorch's `compile`, sharding and checkpointing wrap modules, at any depth.
_WRAPPERS = re.compile(r"(?<![\w])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_SHOWN = 3  # names in a message, because all of them would fill the screen
_LONGEST = 80  # characters of a name in a message


class Contents(NamedTuple):
    """The tensors of a file under the names of its layout.

    tensors: without prefix, only those that have it. names: their names in the file. outside: the
    others, as in the file. removed: what was taken away from names and is unusual for the layout.
    """

    layout: Layout
    tensors: dict[str, np.ndarray]
    names: dict[str, str]
    outside: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def has_layer_scale(self) -> bool:
        """Whether any block has LayerScale."""
        gamma = self.layout.inside["scale1/gamma"][0]
        return any(name.endswith(gamma) for name in self.tensors)

    @property
    def registers(self) -> int:
        """The number of register tokens."""
        array = self.of("registers")
        return array.shape[-2] if array is not None and array.ndim > 1 else 0

    @property
    def depth(self) -> int:
        """The number of blocks, counted by the highest one."""
        before, after = map(re.escape, re.split(r"\{.*\}", self.layout.block))
        block = re.compile(rf"{before}([0-9]{{1,4}}){after}")
        matches = map(block.match, self.tensors)
        return max((int(match[1]) + 1 for match in matches if match), default=0)

    @property
    def width(self) -> int:
        """The number of features; 0 if the file does not tell."""
        for path in ("norm/scale", "class_token", "patches/bias"):
            array = self.of(path)
            if array is not None and array.ndim:
                return array.shape[-1]
        return 0

    @property
    def patch(self) -> int:
        """The side of a patch; 0 if the file does not tell, or if it is no square."""
        kernel = self.of("patches/kernel")
        if kernel is None or kernel.ndim != 4:
            return 0
        # The form of the layout says where the file has our first two axes.
        order = self.layout.other["patches/kernel"][1].shape((0, 1, 2, 3), 1)
        sides = [kernel.shape[order.index(axis)] for axis in (0, 1)]
        return sides[0] if sides[0] == sides[1] else 0

    @property
    def grid(self) -> int | None:
        """The side of the grid of positions; None if there is no such grid."""
        array = self.of("position")
        found = None if array is None or array.ndim < 2 else positions.grid_of(array.shape[-2])
        return found and found[0]

    @property
    def variant(self) -> str:
        """SIZE/PATCH; empty if no variant has these sizes."""
        for size, (width, depth, _) in VIT_SIZES.items():
            if (width, depth) == (self.width, self.depth) and self.patch:
                return f"{size}/{self.patch}"
        return ""

    @property
    def words(self) -> str:
        """The sizes in words."""
        patch = self.patch or "of no square"
        return self.variant or f"width {self.width}, depth {self.depth}, patch {patch}"

    def of(self, path: str) -> np.ndarray | None:
        """The array of our parameter `path`, in the form of the file; None if it has none."""
        return self.tensors.get(self.layout.other[path][0])


def contents(model: settings.ViT, tensors: Mapping[str, np.ndarray]) -> Contents:
    """The contents of the file of `model.weights`.

    Raises `ValueError` for a file in no known layout, for one with several transformers, and if two
    of its names are equal without what wraps them.
    """
    plain = {name: _WRAPPERS.sub("", name) for name in tensors}
    if len(set(plain.values())) < len(plain):
        raise ValueError(
            f"model.weights={model.weights}: holds the same tensors twice, with and without "
            "_orig_mod; keep one of them"
        )
    for layout in LAYOUTS:
        if prefixes := sorted(layout.prefixes(plain.values())):
            break
    else:
        known = ", ".join(layout.name for layout in LAYOUTS)
        raise ValueError(
            f"model.weights={model.weights}: its {len(tensors)} tensors ({some(sorted(tensors))}) "
            f"are not those of a vision transformer in a known layout; known are {known}"
        )
    if len(prefixes) > 1:
        raise ValueError(
            f"model.weights={model.weights}: holds {len(prefixes)} transformers, whose names begin "
            f"with {' and '.join(repr(p) for p in prefixes[:_SHOWN])}; keep the tensors of one"
        )
    prefix = prefixes[0]
    names = {n.removeprefix(prefix): full for full, n in plain.items() if n.startswith(prefix)}
    inside = {name: tensors[full] for name, full in names.items()}
    wrappers = {match[0] for name in tensors for match in _WRAPPERS.finditer(name)}
    removed = [*sorted(wrappers), *([] if layout.is_usual(prefix) else [prefix])]
    outside = tuple(full for full, name in plain.items() if not name.startswith(prefix))
    return Contents(layout, inside, names, outside, tuple(removed))


def completed(model: settings.ViT, found: Contents, image_size: int) -> settings.ViT:
    """`model` with the values of the file for all that is not set.

    Raises `ValueError` if no variant has the sizes of the file, or the patch does not divide the
    image size. Values that are set stay as they are, also wrong ones.
    """
    variant = model.variant
    if variant == "weights":
        variant = found.variant
        if not variant:
            sizes = ", ".join(f"{name} {w} and {d}" for name, (w, d, _) in VIT_SIZES.items())
            raise ValueError(
                f"model.weights={model.weights}: its {found.layout.name} tensors have "
                f"{found.words}, and no variant has these sizes; widths and depths are {sizes}"
            )
    if found.registers > MOST_REGISTERS:
        raise ValueError(
            f"model.weights={model.weights}: has {found.registers} register tokens; at most "
            f"{MOST_REGISTERS} are accepted"
        )
    complete = dataclasses.replace(
        model,
        variant=variant,
        layer_scale=found.has_layer_scale if model.layer_scale is None else model.layer_scale,
        registers=model.registers or found.registers,
    )
    complete.check(image_size)
    resize = model.position_resize
    if resize == "weights":
        fits = found.grid in (None, image_size // complete.sizes.patch)
        resize = NO_RESIZE if fits else found.layout.resize[complete.registers > 0]
    return dataclasses.replace(complete, position_resize=resize)


def some(names: Sequence[str]) -> str:
    """The first few names, and the number of the others; a file may contain any characters."""
    shown = [
        name if name.isprintable() else name.encode("unicode_escape").decode()
        for name in names[:_SHOWN]
    ]
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in shown]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
