"""Images from a .npz file."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from flcl import settings
from flcl.data import base, images, reading
from flcl.data.arrays import entries, pixels
from flcl.storage import npz as storage


def load_npz(path: str, data: settings.Data) -> base.Source:
    """Source from `path`, a .npz file with these arrays.

    train_images, test_images: uint8 [N, H, W] or [N, H, W, C] with 1 to 4 channels: grey, grey and
    alpha, RGB, RGB and alpha.
    train_labels, test_labels: integers [N] or [N, 1], source class ids from 0.
    Optional: class_names [K] strings (otherwise "0", "1", ...); train_domains and test_domains,
    integers [N] or [N, 1] from 0, with domain_names [D] strings (otherwise "0", "1", ...).
    The names of Keras and MedMNIST are known, too: see `entries.chosen`. Raises `ValueError` for a
    missing or unknown array and for a wrong shape.
    """
    name = f"npz:{path}"
    # Of `os.path`: an unknown user after "~" is then a file that is missing, and no other error.
    return from_arrays(name, read(name, pathlib.Path(os.path.expanduser(path))), data)


def from_arrays(name: str, arrays: Mapping[str, np.ndarray], data: settings.Data) -> base.Source:
    """Source from arrays in memory, with the names and shapes of `load_npz`; `name` for errors."""
    keys = entries.chosen(name, arrays)
    given = {e: entries.Entry(name, key, np.asarray(arrays[key])) for e, key in keys.items()}
    classes, labels = entries.numbered(given, "labels", "class_names")
    domains, ids = (), (None, None)
    if "train_domains" in given:
        domains, ids = entries.numbered(given, "domains", "domain_names")
    splits = []
    for part, part_labels, part_ids in zip(("train", "test"), labels, ids, strict=True):
        converted = _converted(given[f"{part}_images"], data)
        splits.append(base.make_split(converted, part_labels, part_ids))
    return base.Source(name, splits[0], splits[1], classes, domains)


def read(name: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays that are used, by their names in the file `path`.

    name: of the source, for messages. Raises `ValueError` for a file that cannot be used.
    """
    try:
        with _opened(name, path) as stored:
            keys = stored.files
        # Names first: an array that is not used may be larger than the memory.
        chosen = entries.chosen(name, keys)
        with _opened(name, path) as stored:
            arrays = {key: stored[key] for key in chosen.values()}
            for key, values in arrays.items():
                if not isinstance(values, np.ndarray):
                    raise ValueError(f"{key} is no array")
        return arrays
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None


@contextlib.contextmanager
def _opened(name: str, path: pathlib.Path) -> Iterator[np.lib.npyio.NpzFile]:
    advice = "write it with numpy.savez and without object arrays"
    with reading.opened(path, name, "not a readable .npz file of plain arrays", advice) as file:
        # The start of a zip archive. NumPy reads other kinds of files, too.
        if file.peek(2)[:2] != b"PK":
            raise ValueError("it does not start as such a file")
        with np.load(file, allow_pickle=False) as stored:
            if harm := storage.bomb(stored.zip, os.fstat(file.fileno()).st_size):
                raise ValueError(f"its {harm}")
            yield stored


def _converted(entry: entries.Entry, data: settings.Data) -> np.ndarray | images.LazyImages:
    """uint8 [N, H, W, C] in the configured size and channels, converted on demand."""
    batch = pixels.batch(entry.name, entry.values)
    if batch.shape[1:] == (data.image_size, data.image_size, data.channels):
        return batch

    def read(positions: list[int]) -> Iterator[np.ndarray]:
        return (images.convert(batch[p], f"{entry.name}[{p}]", data) for p in positions)

    return images.LazyImages(len(batch), read, data)
