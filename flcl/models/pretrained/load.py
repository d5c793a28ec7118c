"""Loads pre-trained weights of any public layout into the tree of our transformer."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from flcl import settings
from flcl.models import vit
from flcl.models.pretrained import files
from flcl.models.pretrained.layouts import LAYOUTS, Layout
from flcl.settings.classification import VIT_SIZES

NORMALIZATIONS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""(mean, standard deviation) of red, green and blue of images scaled to [0, 1]."""

_SHOWN = 3  # names in a message, because all of them would fill the screen


class Pretrained(NamedTuple):
    """Weights in the form of our model.

    params: the tree "params" of `vit.abstract_parameters`, NumPy float32.
    normalize: the normalisation of images: `model.normalize`, or that of the weights.
    layout, sha256: those of the file. ignored: its tensors that features do not use, such as heads.
    """

    params: dict
    normalize: str
    layout: str
    sha256: str
    ignored: tuple[str, ...]


def load(model: settings.ViT, image_size: int) -> Pretrained:
    """The weights of `model.weights` (not "random") for images of `image_size` pixels.

    A position grid of another size is resized. Raises one `ValueError` that lists all missing,
    extra and misshapen tensors, and the errors of `files.read`.
    """
    file = files.read(model)
    layout = _layout(model, file.tensors)
    flat = {
        name: leaf.shape
        for name, leaf in flax.traverse_util.flatten_dict(
            vit.abstract_parameters(model, image_size), sep="/"
        ).items()
    }
    stem = layout.stem(file.tensors)
    _check_tensors(model, layout, stem, file.tensors, flat)
    _check_config(model, file)  # after the shapes, because their message says more
    side, params = vit.grid_side(model, image_size), {}
    for path, shape in flat.items():
        name, form = layout.where(path)
        array = file.tensors[stem + name].astype(np.float32)
        if path == "position":
            array = resize_positions(array.reshape(-1, shape[-1]), side)
        params[path] = np.ascontiguousarray(form.ours(array, shape))
    ignored = tuple(sorted(name for name in file.tensors if layout.is_ignored(name)))
    tree = flax.traverse_util.unflatten_dict(params, sep="/")
    return Pretrained(tree, _normalize(model, layout, file), layout.name, file.sha256, ignored)


def normalization(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(mean [3], standard deviation [3]) float32 of an entry of `NORMALIZATIONS`."""
    mean, std = NORMALIZATIONS[name]
    return np.array(mean, np.float32), np.array(std, np.float32)


def resize_positions(position: np.ndarray, side: int) -> np.ndarray:
    """Resizes positions [1 + old**2, width], class token first, to [1 + side**2, width].

    Bicubic with a = -0.75, aligned pixel centres, repeated edges and no antialiasing, as in the
    models of Hugging Face (timm uses antialiasing, so smaller grids differ slightly from timm's).
    """
    old = math.isqrt(len(position) - 1)
    if old == side:
        return position
    weights = _bicubic(old, side)
    grid = position[1:].reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("ya,xb,abw->yxw", weights, weights, grid, optimize=True)
    resized = np.concatenate([position[:1], grid.reshape(side**2, -1)])
    return resized.astype(position.dtype)


def _bicubic(old: int, new: int) -> np.ndarray:
    """Matrix [new, old] that resizes one axis (Keys 1981, with a = -0.75)."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        x = np.abs(centre - (first + tap))
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        column = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), column), np.where(x <= 1, near, far))
    return matrix


def _layout(model: settings.ViT, tensors: Mapping[str, np.ndarray]) -> Layout:
    matching = [layout for layout in LAYOUTS if layout.matches(tensors)]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ValueError(
        f"model.weights={model.weights}: its {len(tensors)} tensors ({_some(sorted(tensors))}) are "
        f"not those of a vision transformer in a known layout; known are {known}"
    )


def _check_config(model: settings.ViT, file: files.WeightsFile) -> None:
    """Checks what shapes do not show: number of heads, epsilon of the norms, activation."""
    sizes = settings.vit_sizes(model.variant)
    said = {**file.metadata, **file.config}
    for theirs in ("num_attention_heads", "heads"):
        if str(said.get(theirs, sizes.heads)) != str(sizes.heads):
            raise ValueError(
                f"model.variant={model.variant}: has {sizes.heads} attention heads, but the "
                f"weights {model.weights} were trained with {said[theirs]}; choose their variant"
            )
    epsilon = float(said.get("layer_norm_eps", model.layer_norm_eps))
    if not math.isclose(epsilon, model.layer_norm_eps, rel_tol=1e-3):
        raise ValueError(
            f"model.layer_norm_eps={model.layer_norm_eps}: the weights {model.weights} were "
            f"trained with {epsilon}; set model.layer_norm_eps={epsilon}"
        )
    activation = said.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(
            f"model.weights={model.weights}: its activation is {activation!r}; only gelu, in its "
            "exact form, is built"
        )


def _check_tensors(model, layout: Layout, stem: str, tensors, flat) -> None:
    """Raises one error that lists all missing, extra and misshapen tensors."""
    heads = settings.vit_sizes(model.variant).heads
    needed = {}
    for path, shape in flat.items():
        name, form = layout.where(path)
        needed[stem + name] = (path, form.shape(shape, heads))
    missing = [name for name in needed if name not in tensors]
    extra = [name for name in tensors if name not in needed and not layout.is_ignored(name)]
    wrong = []
    for name, (path, shape) in needed.items():
        flaw = _flaw(path, tensors[name], shape) if name in tensors else ""
        if flaw:
            wrong.append(f"{name} {flaw}")
    lists = {"missing": missing, "left over": sorted(extra), "misshapen": wrong}
    said = [f"{len(names)} {kind} ({_some(names)})" for kind, names in lists.items() if names]
    if said:
        cause = _cause(model, layout, stem, tensors)
        raise ValueError(
            f"model.weights={model.weights}: its {layout.name} tensors do not fit "
            f"model.variant={model.variant}, model.layer_scale={model.layer_scale}: "
            f"{'; '.join(said)}. {cause}"
        )


def _flaw(path: str, array: np.ndarray, shape: tuple[int, ...]) -> str:
    """The error in one tensor; empty if it is right."""
    if path == "position" and array.ndim == len(shape) and array.shape[-1] == shape[-1]:
        tokens = array.shape[-2]
        if tokens > 1 and math.isqrt(tokens - 1) ** 2 == tokens - 1:
            shape = array.shape
        elif math.isqrt(tokens) ** 2 == tokens:
            return f"is {list(array.shape)}, without a position for the class token"
        else:
            return f"is {list(array.shape)}, not one more than a square grid"
    if array.shape != shape:
        return f"is {list(array.shape)}, needed {list(shape)}"
    # bfloat16 has kind V like records, which cannot be cast to float32.
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return f"is {array.dtype}, needed floating point"
    return "" if np.isfinite(array).all() else "holds NaN or infinity"


def _cause(model: settings.ViT, layout: Layout, stem: str, tensors) -> str:
    """The most likely reason, and the key to change."""
    advice = []
    scaled = _has_layer_scale(layout, tensors)
    if scaled != model.layer_scale:
        has = "has LayerScale" if scaled else "has no LayerScale"
        advice.append(f"The file {has}: set model.layer_scale={scaled}")
    before, after = re.split(r"\{.*\}", stem + layout.block)
    block = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    depth = len({found[1] for found in map(block.match, tensors) if found})
    token = tensors.get(stem + layout.other["class_token"][0])
    kernel = tensors.get(stem + layout.other["patches/kernel"][0])
    if token is not None and kernel is not None and kernel.ndim == 4:
        patch = sorted(kernel.shape)[1:3]  # of [3, patch, patch, width] in any order
        width = token.shape[-1]
        fits = [name for name, (w, d, _) in VIT_SIZES.items() if (w, d) == (width, depth)]
        size = fits[0] if fits else ""
        holds = f"{size}/{patch[0]}" if size else f"width {width}, depth {depth}"
        if holds != model.variant:
            advice.append(
                f"The file holds {holds}: "
                + (f"set model.variant={holds}" if size else "no variant has these sizes")
            )
    return "; ".join(advice) or "Is it the file of a plain vision transformer?"


def _has_layer_scale(layout: Layout, tensors: Mapping[str, np.ndarray]) -> bool:
    gamma = layout.inside["scale1/gamma"][0]
    return any(name.endswith(gamma) for name in tensors)


def _normalize(model: settings.ViT, layout: Layout, file: files.WeightsFile) -> str:
    """The normalisation of the run, else that of the files beside the weights, else the usual."""
    if model.normalize != "weights":
        return model.normalize
    if layout.name == "flcl":
        return file.metadata.get("normalize", "half")
    said, timm = file.preprocessor, file.config.get("pretrained_cfg", {})
    if said.get("do_normalize") is False:
        return "unit"
    mean, std = said.get("image_mean", timm.get("mean")), said.get("image_std", timm.get("std"))
    if mean is None or std is None:
        return layout.normalize[_has_layer_scale(layout, file.tensors)]
    for name, values in NORMALIZATIONS.items():
        if np.shape(mean) == np.shape(std) == (3,) and np.allclose((mean, std), values, atol=2e-3):
            return name
    raise ValueError(
        f"model.weights={model.weights}: was trained on images normalised with mean {mean} and "
        f"std {std}; known are {', '.join(NORMALIZATIONS)}: choose the nearest as model.normalize"
    )


def _some(names: list[str]) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
