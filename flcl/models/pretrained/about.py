"""What the files beside the weights say about their training: normalisation, heads, epsilon."""

import math
import numbers
from typing import NamedTuple

import numpy as np

from flcl import settings
from flcl.models.pretrained.contents import Contents
from flcl.models.pretrained.files import WeightsFile

NORMALIZATIONS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""(mean, standard deviation) of red, green and blue of images scaled to [0, 1]."""


class Normalization(NamedTuple):
    """The name of a normalisation, and where it was found."""

    name: str
    source: str


def normalization_of(model: settings.ViT, found: Contents, file: WeightsFile) -> Normalization:
    """The normalisation of the run, else that of the files beside the weights, else the usual.

    Raises `ValueError` for one that is said but not known.
    """
    if model.normalize != "weights":
        return Normalization(model.normalize, "as model.normalize says")
    if found.layout.name == "flcl":
        name = file.metadata.get("normalize", "half")
        return Normalization(_known(model, "its metadata", name), "as its metadata say")
    _check_scale(model, file.preprocessor)
    if _switch(model, file.preprocessor, "do_normalize") is False:
        return Normalization("unit", "preprocessor_config.json has do_normalize=false")
    timm = file.config.get("pretrained_cfg", {})
    if not isinstance(timm, dict):
        raise _wrong(model, "config.json", "pretrained_cfg", timm, "a table")
    # Hugging Face's processor, then timm's config.json in its newer and in its older, flat form.
    for name, table, prefix in (
        ("preprocessor_config.json", file.preprocessor, "image_"),
        ("config.json", timm, ""),
        ("config.json", file.config, ""),
    ):
        keys = (f"{prefix}mean", f"{prefix}std")
        said = [table[key] for key in keys if key in table]
        if len(said) == 2:
            mean, std = (_colours(model, name, key, table[key]) for key in keys)
            return Normalization(_nearest(model, mean, std), f"as {name} says")
        if said:
            raise ValueError(
                f"model.weights={model.weights}: {name} has only one of {' and '.join(keys)}; set "
                f"model.normalize to one of {', '.join(NORMALIZATIONS)}"
            )
    usual = found.layout.normalize[found.has_layer_scale]
    differ = len(set(found.layout.normalize)) > 1
    scaled = " with LayerScale" if differ and found.has_layer_scale else ""
    source = (
        f"usual for {found.layout.name} files{scaled}, because no config.json says it; "
        "model.normalize changes it"
    )
    return Normalization(usual, source)


def check(model: settings.ViT, file: WeightsFile) -> None:
    """Checks what shapes do not show: number of heads, epsilon of the norms, activation."""
    said = {**file.metadata, **file.config}
    heads = model.sizes.heads
    for theirs in ("num_attention_heads", "heads"):
        if str(said.get(theirs, heads)) != str(heads):
            raise ValueError(
                f"model.variant={model.variant}: has {heads} attention heads, but the "
                f"weights {model.weights} were trained with {said[theirs]!r}; choose their variant"
            )
    epsilon = said.get("layer_norm_eps", model.layer_norm_eps)
    try:
        number = float(epsilon)  # metadata are always text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise _wrong(model, "config.json", "layer_norm_eps", epsilon, "a number above 0")
    epsilon = number
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


def _nearest(model: settings.ViT, mean: np.ndarray, std: np.ndarray) -> str:
    for name, values in NORMALIZATIONS.items():
        if np.allclose((mean, std), values, atol=2e-3):
            return name
    raise ValueError(
        f"model.weights={model.weights}: was trained on images normalised with mean "
        f"{mean.tolist()} and std {std.tolist()}; known are {', '.join(NORMALIZATIONS)}: choose "
        "the nearest as model.normalize"
    )


def _known(model: settings.ViT, where: str, name: str) -> str:
    if name not in NORMALIZATIONS:
        raise _wrong(model, where, "normalize", name, f"one of {', '.join(NORMALIZATIONS)}")
    return name


def _switch(model: settings.ViT, table: dict, key: str) -> bool | None:
    value = table.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(model, "preprocessor_config.json", key, value, "true or false")
    return value


def _check_scale(model: settings.ViT, table: dict) -> None:
    """Mean and std are those of images in [0, 1]; a processor may leave them in [0, 255]."""
    factor = table.get("rescale_factor", 1 / 255)
    real = isinstance(factor, numbers.Real) and not isinstance(factor, bool)
    if not real:
        raise _wrong(model, "preprocessor_config.json", "rescale_factor", factor, "a number")
    plain = _switch(model, table, "do_rescale") is False
    if plain or not math.isclose(_finite(factor), 1 / 255, rel_tol=1e-3):
        said = "do_rescale=false" if plain else f"rescale_factor={factor}"
        raise ValueError(
            f"model.weights={model.weights}: preprocessor_config.json has {said}, and only images "
            f"scaled to 0 to 1 are known; set model.normalize to one of {', '.join(NORMALIZATIONS)}"
        )


def _colours(model: settings.ViT, where: str, key: str, value) -> np.ndarray:
    """[3], also from one number for all three colours."""
    values = value if isinstance(value, list) else [value]
    real = all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values)
    if not real or len(values) not in (1, 3):
        raise _wrong(model, where, key, value, "a list of three numbers")
    return np.broadcast_to(np.array([_finite(v) for v in values]), 3)


def _finite(value) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON has whole numbers of any length
        return math.inf


def _wrong(model: settings.ViT, where: str, key: str, value, needed: str) -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    return ValueError(f"model.weights={model.weights}: {where} has {key}={shown}, needed {needed}")
