"""Named float32 arrays with a description in JSON, in one safetensors file from anybody.

The description is one JSON text in the metadata of the file. Nothing in a file is run, and nothing
is believed before it is checked: sizes first, then names, types and shapes, then values.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from flcl import files, hints

KEY = "flcl"
"""The entry of the file's metadata that holds the description."""

_LONGEST_HEADER = 16 << 20  # bytes; a network of a hundred thousand arrays needs less
_LONGEST_NAME = 1024  # characters
_SHOWN = 3  # names in an error


class Content(NamedTuple):
    """The arrays of a file by name, float32, and its description."""

    tensors: dict[str, np.ndarray]
    about: dict


def to_bytes(tensors: Mapping[str, np.ndarray], about: Mapping) -> bytes:
    """The content of a file; equal arguments give equal bytes.

    Raises `ValueError` for an array that `read` would refuse.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    if wrong := _flaws(arrays):
        raise ValueError(f"cannot be written: {_some(wrong)}")
    text = json.dumps(about, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return safetensors.numpy.save(arrays, metadata={KEY: text})


def read(path: str | Path, most: int) -> Content:
    """The content of a safetensors file that `to_bytes` has made.

    most: bytes that such a file can have. Raises `ValueError` in one line for a file that is
    larger, damaged, of another kind or without a description, and for an array that is not float32
    or has no entries, NaN or infinity; `OSError` for a file that cannot be read.
    """
    path = files.regular(path)
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{path}: has {size:,} bytes, and such a file has at most {most:,}")
    content = files.read_bytes(path)
    with files.reading(path, lambda reason: _damaged(path, reason)):
        header = _header(content)
        metadata = header.pop("__metadata__", {})
        kinds = {name: entry["dtype"] for name, entry in header.items()}
        if max(map(len, kinds), default=0) > _LONGEST_NAME:
            raise ValueError(f"a name has more than {_LONGEST_NAME} characters")
    if wrong := [f"{hints.quoted(n)} is {k!s:.20}" for n, k in kinds.items() if k != "F32"]:
        raise ValueError(f"{path}: {_some(wrong)}; arrays of F32 are needed")
    with files.reading(path, lambda reason: _damaged(path, reason)):
        tensors = safetensors.numpy.load(content)
    if wrong := _flaws(tensors):
        raise ValueError(f"{path}: {_some(wrong)}")
    return Content(tensors, _about(path, metadata))


def check(path: str | Path, tensors: Mapping, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises one `ValueError` that names arrays that are missing, unknown or of another shape.

    shapes: the needed arrays and their shapes.
    """
    missing = [hints.quoted(name) for name in shapes if name not in tensors]
    unknown = [hints.quoted(name) for name in tensors if name not in shapes]
    wrong = [
        f"{hints.quoted(name)} is {list(tensors[name].shape)}, needed {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != tuple(shape)
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    lines = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if lines:
        raise ValueError(f"{path}: its arrays do not fit: {'; '.join(lines)}")


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over sorted names, types, shapes and bytes, in hexadecimal."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        value = value.astype(value.dtype.newbyteorder("<"), copy=False)
        # As JSON, so no name can look like the beginning of another array.
        total.update(json.dumps([name, value.dtype.name, list(value.shape)]).encode() + b"\n")
        total.update(value.tobytes())
    return total.hexdigest()


def _header(content: bytes) -> dict:
    """The table at the start of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(_LONGEST_HEADER, len(content) - 8):
        raise ValueError("it does not begin with the header of one")
    # The library would keep the last one of two arrays with one name.
    table = json.loads(content[8 : 8 + size], object_pairs_hook=_without_repeats)
    if not isinstance(table, dict) or not isinstance(table.get("__metadata__", {}), dict):
        raise ValueError("its header is no table")
    return table


def _without_repeats(pairs: list[tuple]) -> dict:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("its header has one name twice")
    return table


def _about(path: Path, metadata: Mapping) -> dict:
    text = metadata.get(KEY)
    if not isinstance(text, str):
        raise ValueError(f"{path}: its metadata has no entry {KEY!r}, so flcl did not write it")
    try:
        about = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"metadata {KEY}: {files.reason(error)}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: its metadata {KEY!r} is no table")
    return about


def _flaws(tensors: Mapping[str, np.ndarray]) -> list[str]:
    wrong = []
    for name, value in tensors.items():
        if value.dtype != np.float32:
            wrong.append(f"{hints.quoted(name)} is {value.dtype}, needed float32")
        elif not value.size:
            wrong.append(f"{hints.quoted(name)} has no entries")
        elif not np.isfinite(value).all():
            wrong.append(f"{hints.quoted(name)} holds NaN or infinity")
    return wrong


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: is damaged or no safetensors file ({hints.brief(reason)})")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
