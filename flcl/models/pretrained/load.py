"""Loads pre-trained weights of any public layout into the tree of our transformer."""

import dataclasses
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from flcl import settings
from flcl.models import vit
from flcl.models.pretrained import about, files, positions
from flcl.models.pretrained.about import NORMALIZATIONS
from flcl.models.pretrained.contents import Contents, completed, contents, some


class Pretrained(NamedTuple):
    """Weights in the form of our model.

    params: the tree "params" of `vit.abstract_parameters`, NumPy float32.
    model: the settings, with the values of the file for all that was not set.
    layout: that of the file. ignored: its tensors that features do not use, such as heads.
    note: one line for people: what was found in the file, and what was chosen.
    """

    params: dict
    model: settings.ViT
    layout: str
    ignored: tuple[str, ...]
    note: str


def load(model: settings.ViT, image_size: int) -> Pretrained:
    """The weights of `model.weights` (not "random") for images of `image_size` pixels.

    A position grid of another size is resized. Raises one `ValueError` that lists all missing,
    extra and misshapen tensors, and the errors of `files.read`.
    """
    file = files.read(model)
    found = contents(model, file.tensors)
    complete = completed(model, found, image_size)
    flat = {
        name: leaf.shape
        for name, leaf in flax.traverse_util.flatten_dict(
            vit.abstract_parameters(complete, image_size), sep="/"
        ).items()
    }
    _check_tensors(complete, found, flat)
    about.check(complete, file)  # after the shapes, because their message says more
    normalization = about.normalization_of(complete, found, file)
    complete = dataclasses.replace(complete, normalize=normalization.name, sha256=file.sha256)
    params = {path: _parameter(complete, found, path, flat[path], image_size) for path in flat}
    unused = [full for name, full in found.names.items() if found.layout.is_ignored(name)]
    return Pretrained(
        flax.traverse_util.unflatten_dict(params, sep="/"),
        complete,
        found.layout.name,
        tuple(sorted([*unused, *found.outside])),
        _note(complete, found, normalization, image_size),
    )


def sizes(model: settings.ViT, image_size: int) -> settings.ViT:
    """`model` with the sizes of its weights file; raises the errors of `load` that concern them."""
    if model.weights == "random":
        return model.of_random_weights()
    return completed(model, contents(model, files.read(model).tensors), image_size)


def native_size(model: settings.ViT, most: int) -> int:
    """The side in pixels of the images that a weights file was trained on, at most `most`.

    A larger one becomes the largest multiple of the patch up to `most`. Raises the errors of `load`
    that concern the sizes of the file.
    """
    found = contents(model, files.read(model).tensors)
    patch = max(found.patch, 1)  # 0: `load` says what is wrong with the file
    largest = max(most // patch, 1)
    return patch * min(found.grid or largest, largest)


def normalization(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(mean [3], standard deviation [3]) float32 of an entry of `NORMALIZATIONS`."""
    mean, std = NORMALIZATIONS[name]
    return np.array(mean, np.float32), np.array(std, np.float32)


def _parameter(model, found: Contents, path: str, shape, image_size: int) -> np.ndarray:
    """Our parameter `path` in float32, from the array of the file."""
    name, form = found.layout.where(path)
    array = _float32(found.tensors[name])
    if path == "position":
        side = vit.grid_side(model, image_size)
        array = array.reshape(-1, shape[-1])
        array = positions.resize(array, side, model.position_resize)
    return np.ascontiguousarray(form.ours(array, shape))


def _float32(array: np.ndarray) -> np.ndarray:
    # The check of the tensors refuses what becomes infinite here.
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _note(model: settings.ViT, found: Contents, normalization, image_size: int) -> str:
    """What was found in the file, and what was chosen, in one line."""
    parts = [f"{found.layout.name} {model.variant}"]
    if model.layer_scale:
        parts.append("LayerScale")
    if model.registers:
        parts.append(f"{model.registers} register tokens")
    side = vit.grid_side(model, image_size)
    if found.grid != side:
        parts.append(
            f"positions resized from {found.grid}x{found.grid} to {side}x{side} "
            f"({model.position_resize})"
        )
    if found.removed:
        parts.append(f"{' and '.join(map(repr, found.removed))} removed from its names")
    if found.outside:
        parts.append(f"{len(found.outside)} tensors beside the transformer not used")
    parts.append(f"images normalised as {normalization.name} ({normalization.source})")
    return f"weights {model.weights}: {', '.join(parts)}"


def _check_tensors(model: settings.ViT, found: Contents, flat) -> None:
    """Raises one error that lists all missing, extra and misshapen tensors."""
    layout, tensors = found.layout, found.tensors
    needed = {}
    for path, shape in flat.items():
        name, form = layout.where(path)
        needed[name] = (path, form.shape(shape, model.sizes.heads))
    missing = [name for name in needed if name not in tensors]
    extra = [name for name in tensors if name not in needed and not layout.is_ignored(name)]
    wrong = []
    for name, (path, shape) in needed.items():
        flaw = _flaw(path, tensors[name], shape) if name in tensors else ""
        if flaw:
            wrong.append(f"{name} {flaw}")
    lists = {"missing": missing, "left over": sorted(extra), "misshapen": wrong}
    said = [f"{len(names)} {kind} ({some(names)})" for kind, names in lists.items() if names]
    if said:
        raise ValueError(
            f"model.weights={model.weights}: its {layout.name} tensors do not fit "
            f"model.variant={model.variant}, model.layer_scale={model.layer_scale}: "
            f"{'; '.join(said)}. {_cause(model, found)}"
        )


def _flaw(path: str, array: np.ndarray, shape: tuple[int, ...]) -> str:
    """The error in one tensor; empty if it is right."""
    if path == "position" and array.ndim == len(shape) and array.shape[-1] == shape[-1]:
        if positions.grid_of(array.shape[-2]) is None:
            return f"is {list(array.shape)}, no square grid, with or without one for the class"
        shape = (*shape[:-2], *array.shape[-2:])
    if array.shape != shape:
        return f"is {list(array.shape)}, needed {list(shape)}"
    # bfloat16 has kind V like records, which cannot be cast to float32.
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return f"is {array.dtype}, needed floating point"
    if not np.isfinite(array).all():
        return "holds NaN or infinity"
    largest = np.finfo(np.float32).max
    if array.dtype.itemsize > 4 and not np.isfinite(_float32(array)).all():
        return f"holds {np.abs(array).max():.3g}, more than float32 can hold ({largest:.3g})"
    return ""


def _cause(model: settings.ViT, found: Contents) -> str:
    """The most likely reason, and the key to change."""
    advice = []
    scaled = found.has_layer_scale
    if scaled != model.layer_scale:
        has = "has LayerScale" if scaled else "has no LayerScale"
        advice.append(f"The file {has}: set model.layer_scale={scaled}")
    if found.registers != model.registers:
        advice.append(
            f"The file has {found.registers} register tokens: set model.registers={found.registers}"
        )
    if found.width and found.patch and found.variant != model.variant:
        advice.append(
            f"The file holds {found.words}: "
            + (f"set model.variant={found.variant}" if found.variant else "no variant fits it")
        )
    return "; ".join(advice) or "Is it the file of a plain vision transformer?"
