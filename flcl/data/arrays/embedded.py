"""The two embedded data sets, whole or only some of their classes."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from flcl import hints, settings
from flcl.data import base
from flcl.data.arrays import npz
from flcl.settings import ids

_ASSETS = pathlib.Path(__file__).parents[1] / "assets"


def load_digits(classes: str, data: settings.Data) -> base.Source:
    """The embedded 8x8 digits: 1,437 for training, 360 for testing.

    flcl/data/assets/README.md says where they come from. classes: as for `load_fashion16`.
    """
    arrays = npz.read("digits", _ASSETS / "digits.npz")
    # The file has the published values 0..16; the library expects 0..255.
    for key in ("train_images", "test_images"):
        arrays[key] = ((arrays[key].astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
    return _with_classes(npz.from_arrays("digits", arrays, data), classes)


def load_fashion16(classes: str, data: settings.Data) -> base.Source:
    """The embedded 16x16 Fashion-MNIST: 5,000 for training, 1,000 for testing.

    classes: those that the source has, in this order, such as "0-7" or "bag,boot"; empty = all.
    Each is an id, a range of ids, a name, or a word that only one name contains. Raises
    `ValueError` for a class that does not exist and for one that comes twice.
    """
    arrays = npz.read("fashion16", _ASSETS / "fashion16.npz")
    return _with_classes(npz.from_arrays("fashion16", arrays, data), classes)


def _with_classes(source: base.Source, classes: str) -> base.Source:
    """`source` with only the classes that the text `classes` chooses; empty = all."""
    if not classes:
        return source
    name = f"{source.name}:{classes}"
    chosen: list[int] = []
    for word in ids.separated(classes):
        chosen += _matches(name, word, source.class_names)
    for number in chosen:
        if chosen.count(number) > 1:
            raise ValueError(
                f"{name}: class {source.class_names[number]!r} is chosen twice; name each once"
            )
    table = np.full(len(source.class_names), -1, np.int32)
    table[chosen] = np.arange(len(chosen))

    def half(split: base.Split) -> base.Split:
        rows = np.flatnonzero(table[split.labels] >= 0)
        whole = isinstance(split.images, np.ndarray)
        images = split.images[rows] if whole else split.images.take(rows)
        return base.Split(images, table[split.labels[rows]], split.domains[rows])

    return dataclasses.replace(
        source,
        name=name,
        train=half(source.train),
        test=half(source.test),
        class_names=tuple(source.class_names[number] for number in chosen),
    )


def _matches(source: str, word: str, names: Sequence[str]) -> list[int]:
    """The ids that one word chooses; a name is compared without its case."""
    last, plain = len(names) - 1, [name.casefold() for name in names]
    if limits := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word, re.ASCII):
        first, end = int(limits[1]), int(limits[2] or limits[1])
        if first <= end <= last:
            return list(range(first, end + 1))
    if word.casefold() in plain:
        return [plain.index(word.casefold())]
    found = [k for k, name in enumerate(plain) if word.casefold() in re.split("[ /]", name)]
    if len(found) == 1:
        return found
    raise ValueError(
        f"{source}: class {hints.quoted(word)} is none of its classes; accepted are ids such as 3 "
        f"and 0-{last}, and {', '.join(names)}.{hints.did_you_mean(word, list(names))}"
    )
