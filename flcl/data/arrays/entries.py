"""Which array of a data set is what, by its name, and the numbers of classes and domains."""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from flcl import hints

_NEEDED = ("train_images", "train_labels", "test_images", "test_labels")
_DOMAINS = ("train_domains", "test_domains")
_NAMES = ("class_names", "domain_names")
_MOST = 100_000  # classes without names; the largest public data sets have some 20,000
# Words of other libraries: Keras has x_train and y_test, MedMNIST val_images.
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}
_KINDS = {
    "images": ("images", "image", "x", "data"),
    "labels": ("labels", "label", "y", "targets"),
    "domains": ("domains", "domain"),
}


class Entry(NamedTuple):
    """An array of a user: the data set, the array's name in it, and its values."""

    source: str
    key: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"{self.source}: {self.key}"


def chosen(name: str, keys: Iterable[str]) -> dict[str, str]:
    """The names of `npz.load_npz` -> the names that the user gave to these arrays.

    A name may have a split (train; test; val) and a kind (images or x; labels or y; domains) in
    either order. The validation set is the test set if there is no other; otherwise it is not read.
    Raises `ValueError` for an unknown array, for two arrays with one meaning and if one is missing.
    """
    accepted = ", ".join((*_NEEDED, *_DOMAINS, *_NAMES))
    found: dict[str, str] = {}
    for key in keys:
        entry = _meaning(key)
        if entry is None:
            raise ValueError(
                f"{name}: array {key[:80]!r} is not read; accepted are {accepted}."
                f"{hints.did_you_mean(key, [*_NEEDED, *_DOMAINS, *_NAMES])}"
            )
        if found.setdefault(entry, key) != key:
            raise ValueError(f"{name}: {found[entry]!r} and {key!r} are both {entry}; keep one")
    # Images of a test set are never trained on, and those of a second one are not needed.
    if not any(entry.startswith("test") for entry in found):
        found = {entry.replace("val_", "test_"): key for entry, key in found.items()}
    found = {entry: key for entry, key in found.items() if not entry.startswith("val_")}
    needed = _NEEDED if {*_DOMAINS, "domain_names"}.isdisjoint(found) else (*_NEEDED, *_DOMAINS)
    missing = [entry for entry in needed if entry not in found]
    if missing:
        raise ValueError(f"{name}: array {missing[0]!r} is missing; needed are {', '.join(needed)}")
    return found


def _meaning(key: str) -> str | None:
    if key in _NAMES:
        return key
    words = key.lower().split("_")
    splits = [split for split, known in _SPLITS.items() if {*known} & {*words}]
    kinds = [kind for kind, known in _KINDS.items() if {*known} & {*words}]
    if (len(words), len(splits), len(kinds)) != (2, 1, 1):
        return None
    return f"{splits[0]}_{kinds[0]}"


def numbered(
    given: Mapping[str, Entry], kind: str, names_key: str
) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """Names of classes or domains, and their numbers, int64 [N], for training and for testing.

    kind: "labels" or "domains". Without an array `names_key` the names are "0", "1", ... up to the
    largest number. Raises `ValueError` for numbers that do not count from 0, or are too large.
    """
    both = [_column(given[f"{p}_{kind}"], given[f"{p}_images"]) for p in ("train", "test")]
    # As numbers of Python: NumPy would join int64 and uint64 to float64.
    used = [int(number) for entry in both for number in np.unique(entry.values)]
    lowest, highest = min(used, default=0), max(used, default=-1)
    hint = f"; {kind} are counted from 0, so subtract 1 from all {kind}"
    if names_key in given:
        names = _names(given[names_key])
        _check_range(both, len(names), hint if (lowest, highest) == (1, len(names)) else "")
    else:
        # Otherwise "0" would name no image, and nothing would say so.
        if lowest == 1:
            raise ValueError(
                f"{both[0].name} and {both[1].key} start at 1{hint}, or add {names_key} if none "
                "has the number 0"
            )
        _check_range(both, _MOST, f" without {names_key}")
        names = tuple(map(str, range(highest + 1)))
    train, test = (entry.values.astype(np.int64) for entry in both)
    return names, (train, test)


def _check_range(numbers: Iterable[Entry], bound: int, hint: str) -> None:
    for entry in numbers:
        wrong = entry.values[(entry.values < 0) | (entry.values >= bound)]
        if wrong.size:
            raise ValueError(f"{entry.name} holds {wrong[0]}; accepted are 0 to {bound - 1}{hint}")


def _column(entry: Entry, images: Entry) -> Entry:
    """One integer for each image, [N]."""
    shape, count = entry.values.shape, len(np.atleast_1d(images.values))
    if shape not in ((count,), (count, 1)):
        hint = ""
        if len(shape) == 2 and shape[0] == count:
            hint = "; several labels for an image are not read, and one-hot rows need argmax(1)"
        raise ValueError(
            f"{entry.name} has shape {list(shape)}, but {images.key} holds "
            f"{count} images; needed is [{count}] or [{count}, 1]{hint}"
        )
    if entry.values.dtype.kind not in "iu":
        raise ValueError(f"{entry.name} is {entry.values.dtype}; integers from 0 are needed")
    return entry._replace(values=entry.values.reshape(count))


def _names(entry: Entry) -> tuple[str, ...]:
    values = entry.values
    if values.ndim != 1 or values.dtype.kind != "U":
        raise ValueError(
            f"{entry.name} is {values.dtype} {list(values.shape)}; one string for each is needed"
        )
    # A file may hold numbers that are no characters, and halves of characters.
    codes = np.frombuffer(values.astype(values.dtype.newbyteorder("<")).tobytes(), "<u4")
    if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
        raise ValueError(f"{entry.name} holds what is no text; write it again from strings")
    names = tuple(map(str, values))
    if not names:
        raise ValueError(f"{entry.name} is empty; one string for each is needed")
    if "" in names:
        raise ValueError(f"{entry.name} holds an empty string; every name needs a letter")
    # An accented letter has two forms, which nobody can tell apart.
    plain = [unicodedata.normalize("NFC", name) for name in names]
    if len(set(plain)) != len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        raise ValueError(f"{entry.name} holds {twice!r} twice; every name must differ")
    return names
