"""The result of every source: images, labels and names, for training and for testing."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from flcl.data import images as images_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The training half or the test half of a source.

    images: uint8 [N, H, W, C]; an array, or a decoder that is indexed like an array.
    labels: int32 [N], source class ids: positions in `Source.class_names`.
    domains: int32 [N], positions in `Source.domain_names`; all zero if there are no domains.
    """

    images: np.ndarray | images_lib.LazyImages
    labels: np.ndarray
    domains: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images with their classes.

    Attributes:
      name: the source in messages.
      train: the training images.
      test: the test images.
      class_names: the names of the classes, by class id.
      domain_names: the names of the domains; empty when the data has no domains.
      notes: what a reader of the data should know, each a part of a line.
      split_rule: the rule by which the test images were chosen, if it differs from older versions.
      skipped: the names of unreadable images that are left out; None = such images are an error.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_rule: str = ""
    skipped: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Begun:
    """How a run that has begun chose its images; it needs the same ones until its end.

    Attributes:
      skipped: the names of the images that it leaves out, whether they are readable or not.
      split_rule: `Source.split_rule` of its source; empty = the rule of older versions.
      room: `capacity`, `slots` and `rows` of its `TaskStream`; None = those of a new run. A
        capacity of 0 is the number of classes.
    """

    skipped: tuple[str, ...] = ()
    split_rule: str = ""
    room: Mapping[str, int] | None = None


def make_split(images, labels, domains=None) -> Split:
    """A `Split` with int32 labels [N]; `domains=None` = there are no domains."""
    labels = np.asarray(labels, np.int32)
    domains = np.zeros_like(labels) if domains is None else np.asarray(domains, np.int32)
    assert len(images) == len(labels) == len(domains), (len(images), len(labels), len(domains))
    return Split(images, labels, domains)


def placeholder(classes: int, domains: int | Sequence[str] = 0) -> Source:
    """A source of numbered classes without images, to compute sizes before there is data.

    domains: the number of domains, or their names.
    """
    empty = make_split(np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int32))
    if isinstance(domains, int):
        domains = tuple(map(str, range(domains)))
    return Source("placeholder", empty, empty, tuple(map(str, range(classes))), tuple(domains))


def hashed_place(text: str) -> float:
    """The SHA-256 of `text` as a number in [0, 1), for splits that are equal on every machine."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check_classes(source: Source) -> Source:
    """Returns `source`; `ValueError` names a class without training or test images."""
    for purpose, split in (("training", source.train), ("test", source.test)):
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        for name, count in zip(source.class_names, counts, strict=True):
            if count == 0:
                raise ValueError(
                    f"{source.name}: class {name!r} has no {purpose} images; add some or leave the "
                    "class out of both sets"
                )
    return source
