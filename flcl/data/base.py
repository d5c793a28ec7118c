"""What every source delivers: images, labels and names, for training and for testing."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from flcl.data import images as images_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One half of a source.

    images: uint8 [N, H, W, C]; an array, or a decoder that is indexed like one.
    labels: int32 [N], source class ids: positions in `Source.class_names`.
    domains: int32 [N], positions in `Source.domain_names`; all zero when there are none.
    """

    images: np.ndarray | images_lib.LazyImages
    labels: np.ndarray
    domains: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images with their classes. `domain_names` is empty when the data has no domains."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()


def make_split(images, labels, domains=None) -> Split:
    """A `Split` with int32 labels [N]; `domains=None` means that there are none."""
    labels = np.asarray(labels, np.int32)
    domains = np.zeros_like(labels) if domains is None else np.asarray(domains, np.int32)
    assert len(images) == len(labels) == len(domains), (len(images), len(labels), len(domains))
    return Split(images, labels, domains)


def placeholder(classes: int, domains: int | Sequence[str] = 0) -> Source:
    """A source of nameless classes without images, for sizes that need no data.

    domains: how many nameless ones, or their names.
    """
    empty = make_split(np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int32))
    if isinstance(domains, int):
        domains = tuple(map(str, range(domains)))
    return Source("placeholder", empty, empty, tuple(map(str, range(classes))), tuple(domains))


def hashed_place(text: str) -> float:
    """Where in [0, 1) the SHA-256 of `text` lies: a split that is the same on every machine."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check_classes(source: Source) -> Source:
    """`source` itself; raises `ValueError` naming a class without training or test images."""
    for part, split in (("training", source.train), ("test", source.test)):
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        for name, count in zip(source.class_names, counts, strict=True):
            if count == 0:
                raise ValueError(
                    f"{source.name}: class {name!r} has no {part} images; add some or leave the "
                    "class out of both sets"
                )
    return source
