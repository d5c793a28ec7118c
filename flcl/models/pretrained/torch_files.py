"""Reads tensors from a .safetensors file, or from a .pth file of PyTorch without running it.

A .pth file holds a pickle, which is a program. Here `data.archives.pickles` takes it apart, and
only what a dictionary of plain tensors needs is carried out. Both forms are read: the archive of
PyTorch 1.6 and later, and the older sequence of pickles.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from flcl import files
from flcl.data.archives.pickles import Machine, carried_out
from flcl.storage import npz

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
_DICTIONARY = "collections.OrderedDict"
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_NAMES = {_DICTIONARY, _TENSOR, _PARAMETER, *(f"torch.{name}" for name in _TYPES)}
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, EOFError, struct.error)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], bytes]:
    """The tensors of a file by name, and the bytes of the file.

    Raises `ValueError` in one line for a file that is missing, damaged or of another kind.
    """
    try:
        content = files.read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    if path.suffix.lower() not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"{path}: accepted are .pth and .safetensors files of weights")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.numpy.load(content), content
        zipped = zipfile.is_zipfile(io.BytesIO(content))
        return (_zipped if zipped else _older)(content), content
    except (*_DAMAGE, zipfile.BadZipFile, SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged, or no file of plain tensors ({files.reason(error)}); get it again"
        ) from None


class _Name(str):
    """One of `_NAMES`. It stands for itself and is never called."""


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    """A part of a storage; sizes and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def values(self, elements: np.ndarray) -> np.ndarray:
        """The tensor as an array of its own. elements: all that the storage has."""
        numbers = (self.offset, *self.size, *self.stride)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor with an impossible shape")
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if self.offset + last >= len(elements) or math.prod(self.size) > len(elements):
            raise ValueError("a tensor that is larger than its storage")
        step = elements.itemsize
        part = elements[self.offset :]
        strides = [step * n for n in self.stride]
        return np.lib.stride_tricks.as_strided(part, self.size, strides, writeable=False).copy()


class _Machine(Machine):
    """The operations of a pickled dictionary of tensors, beside those of plain values."""

    def step(self, name: str, argument) -> None:
        """Carries out one operation; `ValueError` for one that no dictionary of tensors needs."""
        match name:
            case "GLOBAL" | "STACK_GLOBAL":
                words = argument.split(" ", 1) if argument else self.pop_last(2)
                self.stack.append(_named(".".join(words)))
            case "BINPERSID":
                self.stack.append(_storage(*self.pop()))
            case "REDUCE":
                self.stack.append(_made(*self.pop_last(2)))
            case "BUILD":
                self.pop()  # versions of the layers, which a dictionary has as an attribute
                if not isinstance(self.stack[-1], dict):
                    raise ValueError("the state of an object is not read")
            case _:
                super().step(name, argument)


def _named(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(f"{name} is not allowed in a file of tensors")
    return _Name(name)


def _storage(kind, name: _Name, key: str, _device, count: int, view=None) -> _Storage:
    if kind != "storage" or view is not None or type(count) is not int or type(key) is not str:
        raise ValueError("a storage of an unknown form")
    return _Storage(key, np.dtype(_TYPES[name.removeprefix("torch.")]), count)


def _made(function, arguments: tuple):
    """What a call of one of `_NAMES` would make."""
    if not isinstance(function, _Name):
        raise ValueError("a call of something that is no function")
    if function == _DICTIONARY and not arguments:
        return {}
    if function == _PARAMETER:
        return arguments[0]
    if function == _TENSOR and isinstance(arguments[0], _Storage):
        return _Tensor(*arguments[:4])
    raise ValueError(f"a call of {function} with unknown arguments")


def _zipped(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of an archive: one pickle, and a file for each storage."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if harm := npz.bomb(archive, len(content)):
            raise ValueError(f"its {harm}")
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("numbers of another byte order")
        tree = carried_out(_Machine(len(content)), io.BytesIO(archive.read(pickled)))
        return _arrays(tree, lambda key: archive.read(f"{folder}data/{key}"))


def _older(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a sequence of pickles: three that describe it, the tensors, the storages."""
    file = io.BytesIO(content)

    def value():
        return carried_out(_Machine(len(content)), file)

    if value() != _MAGIC:
        raise ValueError("the first number is not that of PyTorch")
    _protocol, system, tree, keys = value(), value(), value(), value()
    if system.get("little_endian") is not True:
        raise ValueError("numbers of another byte order")
    sizes = {t.storage.key: t.storage.dtype.itemsize for t in _tensors(tree).values()}
    stored = {key: _counted(file, sizes[key]) for key in keys}
    return _arrays(tree, stored.__getitem__)


def _counted(file: BinaryIO, size: int) -> bytes:
    """The bytes of the next storage: its number of elements is before them."""
    (count,) = struct.unpack("<q", file.read(8))
    if count < 0:
        raise ValueError("a storage of an impossible size")
    return file.read(count * size)


def _tensors(tree) -> dict[str, _Tensor]:
    """The tensors of a dictionary; `ValueError` if there is anything else."""
    if not isinstance(tree, dict) or not all(isinstance(t, _Tensor) for t in tree.values()):
        raise ValueError("something else than a dictionary of tensors")
    return tree


def _arrays(tree, read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The arrays of a dictionary of tensors. read: the bytes of a storage by its key."""
    arrays = {}
    for name, tensor in _tensors(tree).items():
        content, storage = read(tensor.storage.key), tensor.storage
        if len(content) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"{len(content)} bytes for a storage of {storage.count} elements")
        arrays[name] = tensor.values(np.frombuffer(content, storage.dtype))
    return arrays
