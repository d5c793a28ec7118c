"""Official archives of arrays: the tar files of pickles of CIFAR, and IDX files as of MNIST."""

import gzip
import math
import pathlib
import tarfile
from typing import NamedTuple

import numpy as np

from flcl.data.archives import members, pickles

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
        if pixels.shape[1:] != (28, 28) or numbers.shape != pixels.shape[:1]:
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
    contents = _read_batches(path, {*wanted, f"{folder}/{meta_file}"})
    parts = {}
    with members.checked(path):
        for part, batches in files.items():
            read = [_cifar_batch(contents[f"{folder}/{b}"], b, label_key) for b in batches]
            pixels, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
            parts[part] = (pixels, labels)
        names = contents[f"{folder}/{meta_file}"][names_key]
    return _checked(path, Archive(parts, members.class_names(path, names)))


def _read_batches(path: pathlib.Path, wanted: set[str]) -> dict[str, dict]:
    contents = {}
    with members.opened(path) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        for name, member in members.tar_files(archive):
            if name in wanted:
                contents[name] = pickles.read_batch(members.read(archive, member))
    missing = sorted(wanted - set(contents))
    if missing:
        raise ValueError(f"{path}: holds no {missing[0]}; {members.AGAIN}")
    return contents


def _cifar_batch(batch: dict, name: str, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and labels, int64 [N], of one file."""
    pixels, labels = batch["data"], batch[label_key]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise ValueError(f"{name}: data is no array of bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{name}: {label_key} is no list of whole numbers")
    if pixels.shape != (len(labels), 3072):
        raise ValueError(f"{name}: data has shape {list(pixels.shape)}, not [{len(labels)}, 3072]")
    # An image is a row: a red, a green and a blue plane of 32x32, each row by row.
    pixels = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(labels, np.int64)


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Unsigned bytes of an IDX file: 0, 0, type 8, number of axes, big-endian sizes, data."""
    with members.opened(path) as raw, gzip.open(raw) as file:
        start = file.read(4)
        if start[:3] != b"\x00\x00\x08":
            raise ValueError("not an IDX file of bytes")
        axes = start[3]
        shape = tuple(np.frombuffer(file.read(4 * axes), ">u4", axes).tolist())
        size = math.prod(shape)
        members.check_size(size)
        # One byte more, to notice what is too much. At its end, the file is compared with its sum.
        values = np.frombuffer(file.read(size + 1), np.uint8)
        if values.size != size:
            more = "or more " if values.size > size else ""
            raise ValueError(f"{values.size} {more}bytes where {size} are announced")
        return values.reshape(shape)


def _checked(path: pathlib.Path, archive: Archive) -> Archive:
    for part, (_, labels) in archive.parts.items():
        if not len(labels) or labels.min() < 0 or labels.max() >= len(archive.class_names):
            raise ValueError(
                f"{path}: {part} labels are not in 0 to {len(archive.class_names) - 1}; "
                f"{members.AGAIN}"
            )
    return archive
