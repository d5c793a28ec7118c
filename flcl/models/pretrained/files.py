"""Reads the files of pre-trained weights that `model.weights` names."""

import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np
import safetensors

from flcl import paths, settings

_TINY = pathlib.Path(__file__).parents[1] / "assets" / "tiny_vit.safetensors"
_BESIDE = ("config.json", "preprocessor_config.json")
_ACCEPTED = (
    "accepted are tiny, random, a .npz or .safetensors file, a folder with model.safetensors, and "
    "hub:NAME"
)


class WeightsFile(NamedTuple):
    """Arrays and metadata of a weights file, and the JSON files in the same folder."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    config: dict
    preprocessor: dict
    sha256: str


def read(model: settings.ViT) -> WeightsFile:
    """Reads the file of `model.weights` and checks its SHA-256, unless `model.sha256` is empty.

    Raises `ValueError` if the file or name does not exist, if the hash differs, and if the file is
    unreadable, truncated or of another kind.
    """
    place = pathlib.Path(_download(model.weights) if _is_hub(model) else _local(model.weights))
    beside = {}
    if place.is_dir():
        beside = {name: _json(model, place / name) for name in _BESIDE if (place / name).exists()}
        place = _inside(model, place)
    if place.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"model.weights={model.weights}: {place.suffix or 'a file without ending'} is not "
            f"read; {_ACCEPTED}. PyTorch's .pth and .bin convert with safetensors.torch.save_file"
        )
    digest = _digest(place)
    if model.sha256 and digest != model.sha256.lower():
        raise ValueError(
            f"model.sha256={model.sha256}: {place} has SHA-256 {digest}; get the file again, or "
            "correct the key if this is the file you mean"
        )
    try:
        tensors, metadata = (_npz if place.suffix == ".npz" else _safetensors)(place)
    except Exception as error:  # damaged files raise anything from BadZipFile to SafetensorError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"model.weights={model.weights}: {place.name} is truncated or no {place.suffix} file "
            f"({reason}); get it again"
        ) from error
    return WeightsFile(
        tensors,
        metadata,
        beside.get("config.json", {}),
        beside.get("preprocessor_config.json", {}),
        digest,
    )


def _is_hub(model: settings.ViT) -> bool:
    return model.weights.startswith("hub:")


def _local(weights: str) -> pathlib.Path:
    if weights == "tiny":
        return _TINY
    path = paths.local(weights, "model.weights")
    if not weights or not path.exists():
        raise ValueError(f"model.weights={weights!r}: no such file or folder; {_ACCEPTED}")
    return path


def _download(weights: str) -> str:
    """The folder of a Hugging Face repository, from the cache if it is there."""
    name = weights.removeprefix("hub:")
    try:
        import huggingface_hub  # not a dependency: needed only for hub:NAME
    except ImportError as error:
        raise ValueError(
            f"model.weights={weights}: needs huggingface_hub; `pip install huggingface_hub`, or "
            "give the path of a file that is already here"
        ) from error
    try:
        return huggingface_hub.snapshot_download(
            name, allow_patterns=["model.safetensors", *_BESIDE]
        )
    except Exception as error:  # no network, no such repository, no right to read it, ...
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"model.weights={weights}: cannot be had from the hub ({lines[0]}); check the name and "
            "the network, or give the path of a file that is already here"
        ) from error


def _inside(model: settings.ViT, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.safetensors"
    if not path.exists():
        raise ValueError(
            f"model.weights={model.weights}: the folder has no model.safetensors; name the file "
            "itself, or convert the weights to one safetensors file of that name"
        )
    return path


def _json(model: settings.ViT, path: pathlib.Path) -> dict:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"model.weights={model.weights}: {path.name} is not readable JSON ({error}); get the "
            "folder again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"model.weights={model.weights}: {path.name} holds no table; get the folder again"
        )
    return content


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    # We open the file, because NumPy does not close a damaged file.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays), {}


def _safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
