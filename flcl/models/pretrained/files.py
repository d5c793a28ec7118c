"""Reads the files of pre-trained weights that `model.weights` names.

Nothing in a file is run: pickles are refused. An `OSError` passes through with its path, because
it says nothing about the content of a file.
"""

import hashlib
import io
import json
import pathlib
import re
import zipfile
from typing import NamedTuple

import numpy as np
import safetensors

from flcl import files, settings
from flcl.storage import npz, paths

_TINY = pathlib.Path(__file__).parents[1] / "assets" / "tiny_vit.safetensors"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_BESIDE = ("config.json", "preprocessor_config.json")
_ACCEPTED = (
    "accepted are tiny, random, a .npz or .safetensors file, a folder with model.safetensors (one "
    "file or several with an index), and hub:NAME"
)
# Others are no weights, but may be in a file beside them, such as counters.
_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


class _RefusedError(Exception):
    """Content that is not damaged, and not read; the text says what it is."""


class WeightsFile(NamedTuple):
    """Arrays and metadata of weights in one or several files, and the JSON files beside them.

    `null` entries of the JSON files are left out. sha256: that of the file; of several files, that
    of their contents one after the other, in the order of their names.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    config: dict
    preprocessor: dict
    sha256: str


def read(model: settings.ViT) -> WeightsFile:
    """Reads the file of `model.weights` and checks its SHA-256, unless `model.sha256` is empty.

    Raises `ValueError` if the file or name does not exist, if the hash differs, and if the file is
    damaged or of another kind; `OSError` if it cannot be read.
    """
    is_hub = model.weights.startswith("hub:")
    place = pathlib.Path(_download(model.weights)) if is_hub else _local(model.weights)
    if place.is_dir():
        place = _inside(model, place)
    # The standard names tell that the JSON files in the folder belong to these weights.
    beside = {}
    if place.name in (_SINGLE, _INDEX):
        there = [name for name in _BESIDE if (place.parent / name).exists()]
        beside = {name: _without_nulls(_json(model, place.parent / name)) for name in there}
    shards = _shards(model, place) if place.name == _INDEX else {}
    if re.search(r"-\d+-of-\d+\.safetensors$", place.name) and (place.parent / _INDEX).exists():
        raise ValueError(
            f"model.weights={model.weights}: is one of several files; give {_INDEX} or its folder"
        )
    parts = sorted(place.parent / name for name in shards) if shards else [place]
    digest = _digest(model, parts)
    if model.sha256 and digest != model.sha256.lower():
        raise ValueError(
            f"model.sha256={model.sha256}: {place} has SHA-256 {digest}; get the file again, or "
            "correct the key if this is the file you mean"
        )
    tensors, metadata = {}, {}
    for path in parts:
        arrays, about = _arrays(model, path)
        needed = shards.get(path.name, arrays)
        if lacking := [name for name in needed if name not in arrays]:
            raise ValueError(
                f"model.weights={model.weights}: {path.name} has no tensor {lacking[0]!r}, which "
                f"{_INDEX} expects in it; get the folder again"
            )
        tensors |= {name: arrays[name] for name in needed}
        metadata |= about
    config, preprocessor = (beside.get(name, {}) for name in _BESIDE)
    return WeightsFile(tensors, metadata, config, preprocessor, digest)


def _local(weights: str) -> pathlib.Path:
    if weights == "tiny":
        return _TINY
    path = paths.local(weights, "model.weights")
    try:
        # Not `exists()`, which answers False also where a folder may not be read.
        path.stat()
    except FileNotFoundError as error:
        raise ValueError(f"model.weights={weights!r}: no such file or folder; {_ACCEPTED}") from (
            error
        )
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
    wanted = [_SINGLE, _INDEX, "model-*.safetensors", *_BESIDE]
    try:
        return huggingface_hub.snapshot_download(name, allow_patterns=wanted)
    except Exception as error:  # no network, no such repository, no right to read it, ...
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"model.weights={weights}: cannot be had from the hub ({lines[0]}); check the name and "
            "the network, or give the path of a file that is already here"
        ) from error


def _inside(model: settings.ViT, folder: pathlib.Path) -> pathlib.Path:
    names = {path.name for path in folder.iterdir()}
    for name in (_SINGLE, _INDEX):
        if name in names:
            return folder / name
    others = sorted(n for n in names if pathlib.Path(n).suffix in (".safetensors", ".npz"))
    hint = (
        f"name the file itself, such as {str(folder / others[0])!r}"
        if others
        else ("name the file itself, or convert the weights to one safetensors file of that name")
    )
    raise ValueError(f"model.weights={model.weights}: the folder has no {_SINGLE}; {hint}")


def _shards(model: settings.ViT, index: pathlib.Path) -> dict[str, list[str]]:
    """{file in the folder: names of its tensors} of an index by Hugging Face."""
    table = _json(model, index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ValueError(f"model.weights={model.weights}: {index.name} has no table weight_map")
    shards: dict[str, list[str]] = {}
    for tensor, name in table.items():
        # A name is a file in this folder: an index from somebody else may read nothing else.
        plain = isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name)
        if not plain or name.startswith("."):
            raise ValueError(
                f"model.weights={model.weights}: {index.name} names {name!r}, which is not the "
                "name of a .safetensors file in its folder"
            )
        shards.setdefault(name, []).append(tensor)
    missing = [name for name in shards if not (index.parent / name).exists()]
    if missing:
        raise ValueError(
            f"model.weights={model.weights}: {len(missing)} of {len(shards)} files are missing "
            f"({sorted(missing)[0]}); get the folder again"
        )
    return shards


def _json(model: settings.ViT, path: pathlib.Path) -> dict:
    _check_kind(model, path)
    content = files.read_bytes(path)
    _check_start(model, path, content[:1024])

    def damaged(reason: str) -> ValueError:
        what = f"{path.name} is not readable JSON ({reason}); get the folder again"
        return ValueError(f"model.weights={model.weights}: {what}")

    with files.reading(path, damaged):
        table = json.loads(content.decode("utf-8"))
    if not isinstance(table, dict):
        raise ValueError(
            f"model.weights={model.weights}: {path.name} holds no table; get the folder again"
        )
    return table


def _without_nulls(table: dict) -> dict:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if value is not None
    }


def _check_kind(model: settings.ViT, path: pathlib.Path) -> None:
    """Raises `ValueError` for what blocks or never ends when it is opened: pipes, devices, ..."""
    if files.special(path.stat()):
        raise ValueError(f"model.weights={model.weights}: {path.name} is not a regular file")


def _check_start(model: settings.ViT, path: pathlib.Path, start: bytes) -> None:
    """Raises `ValueError` for what is often found in the place of a large file."""
    if start.startswith(b"version ") and b"git-lfs" in start:
        raise ValueError(
            f"model.weights={model.weights}: {path.name} is a Git LFS pointer, not the file "
            "itself; run `git lfs pull` in its folder"
        )
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(
            f"model.weights={model.weights}: {path.name} is a web page, not the file itself; "
            "download the file"
        )


def _digest(model: settings.ViT, parts: list[pathlib.Path]) -> str:
    """SHA-256 of the files; they are read whole here, so an `OSError` comes before any parsing."""
    digest = hashlib.sha256()
    for path in parts:
        if path.suffix.lower() not in (".npz", ".safetensors"):
            raise ValueError(
                f"model.weights={model.weights}: {path.suffix or 'a file without ending'} is not "
                f"read; {_ACCEPTED}. PyTorch's .pth, .pt and .bin may hold programs; convert them "
                "with safetensors.torch.save_file"
            )
        _check_kind(model, path)
        with path.open("rb") as file:
            _check_start(model, path, file.read(1024))
            file.seek(0)
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _arrays(model: settings.ViT, path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metadata of one file; every error of a format is told in one line."""
    parse = _npz if path.suffix.lower() == ".npz" else _safetensors
    try:
        return parse(path)
    except OSError:
        raise
    except _RefusedError as error:
        raise ValueError(f"model.weights={model.weights}: {path.name} {error}") from error
    except MemoryError as error:
        raise ValueError(
            f"model.weights={model.weights}: not enough memory for {path.name} ({error})"
        ) from error
    except Exception as error:  # damaged files raise anything from BadZipFile to SafetensorError
        # The library writes the errors of the system into its text.
        if (passing := files.may_pass(error, path)) is not None:
            raise passing from error
        raise ValueError(
            f"model.weights={model.weights}: {path.name} is truncated or no {path.suffix} file "
            f"({files.reason(error)}); get it again"
        ) from error


def _npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    # From memory: then no error of the disk can look like a damaged archive.
    content = files.read_bytes(path)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if harm := npz.bomb(archive, len(content)):
            raise _RefusedError(f"is no file of weights: its {harm}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = dict(arrays)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise _RefusedError("holds pickled objects, which may be programs; save arrays") from error
    others = [name for name, array in found.items() if not isinstance(array, np.ndarray)]
    if others:  # NumPy returns the bytes of any other file
        raise _RefusedError(f"holds {others[0]!r}, which is no array of NumPy")
    return found, {}


def _safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118
            kind = file.get_slice(name).get_dtype()
            if kind not in _TYPES:
                raise _RefusedError(f"has {name!r} of type {kind}; read are {', '.join(_TYPES)}")
            tensors[name] = file.get_tensor(name)
        return tensors, file.metadata() or {}
