"""Official archives of arrays: the tar files of pickles of CIFAR, and IDX files as of MNIST."""

import contextlib
import gzip
import io
import math
import pathlib
import pickle
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class Archive(NamedTuple):
    """Content of an archive: part "train" or "test" -> (uint8 [N, H, W, C], int [N])."""

    parts: dict[str, tuple[np.ndarray, np.ndarray]]
    class_names: tuple[str, ...]


def read_cifar10(folder: pathlib.Path) -> Archive:
    """`cifar-10-python.tar.gz` in `folder`; raises `ValueError` if it is damaged."""
    files = {"train": _CIFAR10_TRAIN, "test": ("test_batch",)}
    path = folder / "cifar-10-python.tar.gz"
    return _read_cifar(path, "cifar-10-batches-py", files, "labels", "batches.meta", "label_names")


def read_cifar100(folder: pathlib.Path) -> Archive:
    """`cifar-100-python.tar.gz` in `folder`, fine labels; raises `ValueError` if it is damaged."""
    files = {"train": ("train",), "test": ("test",)}
    path = folder / "cifar-100-python.tar.gz"
    return _read_cifar(path, "cifar-100-python", files, "fine_labels", "meta", "fine_label_names")


def read_fashion_mnist(folder: pathlib.Path) -> Archive:
    """The four IDX files of Fashion-MNIST in `folder`; raises `ValueError` if one is damaged."""
    parts = {}
    for part, (images, labels) in _IDX_FILES.items():
        pixels, numbers = _read_idx(folder / images), _read_idx(folder / labels)
        if pixels.ndim != 3 or numbers.shape != pixels.shape[:1]:
            raise ValueError(
                f"{folder / images}: {list(pixels.shape)} images do not fit {list(numbers.shape)} "
                f"labels in {labels}; fetch both files again"
            )
        parts[part] = (pixels[..., None], numbers.astype(np.int64))
    return _checked(folder / _IDX_FILES["train"][1], Archive(parts, FASHION_CLASSES))


# The files that each reader needs in a folder.
CIFAR10_FILES = ("cifar-10-python.tar.gz",)
CIFAR100_FILES = ("cifar-100-python.tar.gz",)
FASHION_FILES = _IDX_FILES["train"] + _IDX_FILES["test"]


def _read_cifar(path, folder, files, label_key, meta_file, names_key) -> Archive:
    wanted = {f"{folder}/{file}" for part in files.values() for file in part}
    contents = _unpickle_members(path, {*wanted, f"{folder}/{meta_file}"})
    with named(path):
        names = tuple(contents[f"{folder}/{meta_file}"][names_key])
        parts = {}
        for part, members in files.items():
            batches = [contents[f"{folder}/{member}"] for member in members]
            pixels = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
            labels = np.concatenate([np.asarray(batch[label_key], np.int64) for batch in batches])
            # An image is a row: a red, a green and a blue plane of 32x32, each row by row.
            pixels = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
            parts[part] = (np.ascontiguousarray(pixels), labels)
    return _checked(path, Archive(parts, names))


def _unpickle_members(path: pathlib.Path, members: set[str]) -> dict[str, dict]:
    contents = {}
    with named(path), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isfile() and member.name in members:
                contents[member.name] = _Unpickler(archive.extractfile(member)).load()
    missing = sorted(members - set(contents))
    if missing:
        raise ValueError(f"{path}: holds no {missing[0]}; fetch the official archive again")
    return contents


class _Unpickler(pickle.Unpickler):
    """Unpickles only arrays, numbers and strings, which cannot run code."""

    def __init__(self, file):
        # Python 2 pickled these archives; there, text and array bytes had the same type.
        super().__init__(io.BytesIO(file.read()), encoding="latin1")

    def find_class(self, module: str, name: str):
        """The few constructors that a pickled array needs; `UnpicklingError` for all others."""
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _dtype,
            # NumPy moved this function; an array gives it in every version.
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a pickled image batch")
        return allowed[module, name]


def _dtype(code: str, align: int = 0, copy: int = 0) -> np.dtype:
    """The old pickles have integers as flags; NumPy 2.4.0 to 2.4.4 warn about them."""
    return np.dtype(code, align=bool(align), copy=bool(copy))


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Unsigned bytes of an IDX file: 0, 0, type 8, number of axes, big-endian sizes, data."""
    with named(path):
        content = gzip.decompress(path.read_bytes())
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("not an IDX file of bytes")
        axes = content[3]
        shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
        if values.size != math.prod(shape):
            raise ValueError(f"{values.size} bytes where {math.prod(shape)} are announced")
        return values.reshape(shape)


def _checked(path: pathlib.Path, archive: Archive) -> Archive:
    for part, (_, labels) in archive.parts.items():
        if not len(labels) or labels.min() < 0 or labels.max() >= len(archive.class_names):
            raise ValueError(
                f"{path}: {part} labels are not in 0 to {len(archive.class_names) - 1}; "
                "fetch the official archive again"
            )
    return archive


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
    """Turns every error inside the block into one line that names `path`."""
    try:
        yield
    except Exception as error:  # damaged archives raise anything from EOFError to KeyError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: damaged or not the official file ({reason})") from error
