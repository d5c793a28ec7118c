"""Low-rank updates of our transformer in the form of the library PEFT, for the same ViT in PyTorch.

PEFT adds lora_B lora_A alpha / r to the weight [out, in] of a linear module. Ours is a core b' on a
kernel [in, out], so lora_A = a' and lora_B = b core', with alpha = r: the product is exact.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from flcl import hints
from flcl.models.pretrained.layouts import LAYOUTS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The two files of a PEFT folder."""

# What newer versions of Transformers, such as 5.24, call the modules whose weights still have the
# names of version 4 in files. PEFT compares names of modules.
_ATTENTION = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
_NEWER_VIT = {
    "encoder.layer.": "layers.",
    **_ATTENTION,
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


class Model(NamedTuple):
    """A model in PyTorch: the layout of its weights, and {part of a name: that of its modules}."""

    layout: str
    renamed: Mapping[str, str] = {}


MODELS = {
    "vit": Model("Hugging Face ViT", _NEWER_VIT),
    "vit_4": Model("Hugging Face ViT"),
    "dinov2": Model("Hugging Face Dinov2", _ATTENTION),
    "dinov2_4": Model("Hugging Face Dinov2"),
    "timm": Model("timm"),
    "dinov2_hub": Model("DINOv2"),
}
"""The models that are known. Those that end in `_4` have the modules of Transformers 4, such as
`attention.attention.query`; newer ones have `attention.q_proj`."""


class Factors(NamedTuple):
    """lora_A [r, in] and lora_B [out, r] of a module."""

    a: np.ndarray
    b: np.ndarray


def model_of(layout: str | None, asked: str | None, weights: str) -> Model:
    """The model whose names an adapter gets.

    layout: that of the weights file, or None if it is not known. asked: a key of `MODELS`; None =
    the first with that layout. weights: `model.weights`, for errors. Raises `ValueError` for an
    unknown name, and for weights that are those of no model in PyTorch.
    """
    if asked is not None and asked not in MODELS:
        hint = hints.did_you_mean(str(asked), list(MODELS))
        raise ValueError(f"model={hints.quoted(asked)}: accepted are {', '.join(MODELS)}.{hint}")
    fitting = [name for name, model in MODELS.items() if model.layout == layout]
    if asked is None and not fitting:
        has = f"have the layout {layout}, which" if layout else "are of no known layout, which"
        raise ValueError(
            f"model.weights={weights}: {has} names no modules of PyTorch; name the model that has "
            f"the same weights there: {', '.join(MODELS)}"
        )
    return MODELS[asked or fitting[0]]


def modules(adapters: Mapping, model: Model) -> dict[str, Factors]:
    """The factors of each module of PyTorch.

    adapters: `{block: {map: {"a": [in, R], "core": [R, R], "b": [out, R]}}}`. A module that fuses
    queries, keys and values gets the sum of their ranks. Columns that no map uses are left out, and
    every module gets the same r, with zeros where it has fewer.
    """
    layout = next(each for each in LAYOUTS if each.name == model.layout)
    maps: dict[str, list[tuple[int, int, Factors]]] = {}
    for block, sites in adapters.items():
        for site, entry in sites.items():
            path = f"{block}/{site}/kernel"
            name, form = layout.where(path)
            factors = _factors(entry)
            inputs, outputs = factors.a.shape[1], factors.b.shape[0]
            rows = form.shape((inputs, outputs), 1)[0]
            # In a fused module the rows of queries come first, then those of keys and of values.
            place = "qkv".index(site) * outputs if rows > outputs else 0
            name = name.removesuffix(".weight")
            for old, new in model.renamed.items():
                name = name.replace(old, new)
            maps.setdefault(name, []).append((place, rows, factors))
    joined = {name: _joined(parts) for name, parts in maps.items()}
    rank = max(1, *(len(factors.a) for factors in joined.values()))
    return {name: _padded(factors, rank) for name, factors in joined.items()}


def folder(
    adapters: Mapping, model: Model, prefix: str = "", base: str | None = None
) -> dict[str, bytes]:
    """The content of the files of a PEFT folder by name.

    adapters, model: as for `modules`. prefix: what stands before its names in a larger model, such
    as `vit.` in one with a classifier. base: the name of the weights on the hub.
    """
    factors = modules(adapters, model)
    rank = len(next(iter(factors.values())).a)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{prefix}{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{prefix}{name}.lora_B.weight"] = b
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [f"{prefix}{name}" for name in factors],
        "modules_to_save": None,
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    return {WEIGHTS: content, CONFIG: text.encode()}


def _factors(entry: Mapping) -> Factors:
    """One map in the form of PEFT, without columns that add nothing."""
    a, core, b = (np.asarray(entry[name], np.float64) for name in ("a", "core", "b"))
    left, right = a.T, b @ core.T
    used = left.any(axis=1) & right.any(axis=0)
    return Factors(np.float32(left[used]), np.float32(right[:, used]))


def _joined(parts: list[tuple[int, int, Factors]]) -> Factors:
    """One module from its maps, each with its first row and the number of rows of the module."""
    rank = sum(len(factors.a) for _, _, factors in parts)
    b, column = np.zeros((parts[0][1], rank), np.float32), 0
    for place, _, factors in parts:
        outputs, columns = factors.b.shape
        b[place : place + outputs, column : column + columns] = factors.b
        column += columns
    return Factors(np.concatenate([factors.a for _, _, factors in parts]), b)


def _padded(factors: Factors, rank: int) -> Factors:
    more = rank - len(factors.a)
    a, b = np.pad(factors.a, ((0, more), (0, 0))), np.pad(factors.b, ((0, 0), (0, more)))
    return Factors(np.ascontiguousarray(a), np.ascontiguousarray(b))
