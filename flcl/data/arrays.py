"""Images from a .npz file, and the two embedded data sets."""

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from flcl import hints, settings
from flcl.data import base, images

_ASSETS = pathlib.Path(__file__).parent / "assets"
_NEEDED = ("train_images", "train_labels", "test_images", "test_labels")
_OPTIONAL = ("class_names", "train_domains", "test_domains", "domain_names")


def load_npz(path: str, data: settings.Data) -> base.Source:
    """Source from `path`, a .npz file with these arrays.

    train_images, test_images: uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3].
    train_labels, test_labels: integers [N], source class ids from 0.
    Optional: class_names [K] strings (otherwise "0", "1", ...); train_domains and test_domains,
    integers [N] from 0, with domain_names [D] strings (otherwise "0", "1", ...).
    Raises `ValueError` for a missing or unknown array and for a wrong shape.
    """
    name = f"npz:{path}"
    return from_arrays(name, _read(name, pathlib.Path(path).expanduser()), data)


def load_digits(_: str, data: settings.Data) -> base.Source:
    """The embedded 8x8 digits: 1,437 for training, 360 for testing (see assets/README.md)."""
    arrays = _read("digits", _ASSETS / "digits.npz")
    # The file has the published values 0..16; the library expects 0..255.
    for key in ("train_images", "test_images"):
        arrays[key] = ((arrays[key].astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
    return from_arrays("digits", arrays, data)


def load_fashion16(_: str, data: settings.Data) -> base.Source:
    """The embedded 16x16 Fashion-MNIST: 5,000 for training, 1,000 for testing."""
    return from_arrays("fashion16", _read("fashion16", _ASSETS / "fashion16.npz"), data)


def from_arrays(name: str, arrays: Mapping[str, np.ndarray], data: settings.Data) -> base.Source:
    """Source from arrays in memory, with the names and shapes of `load_npz`; `name` for errors."""
    _check_keys(name, arrays)
    classes = _names(name, arrays, "class_names", "labels")
    domains = ()
    if "train_domains" in arrays:
        domains = _names(name, arrays, "domain_names", "domains")
    splits = []
    for part in ("train", "test"):
        labels = _numbers(name, arrays, f"{part}_labels", len(classes))
        ids = _numbers(name, arrays, f"{part}_domains", len(domains)) if domains else None
        pixels = _pixels(f"{name}: {part}_images", arrays[f"{part}_images"], data)
        splits.append(base.make_split(pixels, labels, ids))
    return base.Source(name, splits[0], splits[1], classes, domains)


def _read(name: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{name}: no such file")
    try:
        # We open the file, because NumPy does not close a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged archive raises anything from BadZipFile to zlib.error
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name}: not a readable .npz file of plain arrays ({reason}); "
            "write it with numpy.savez and without object arrays"
        ) from error


def _check_keys(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    known = [*_NEEDED, *_OPTIONAL]
    for key in arrays:
        if key not in known:
            raise ValueError(
                f"{name}: array {key!r} is not read; accepted are {', '.join(known)}."
                f"{hints.did_you_mean(key, known)}"
            )
    needed = list(_NEEDED)
    if not {"train_domains", "test_domains", "domain_names"}.isdisjoint(arrays):
        needed += ["train_domains", "test_domains"]
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise ValueError(f"{name}: array {missing[0]!r} is missing; needed are {', '.join(needed)}")
    for part in ("train", "test"):
        count = len(np.atleast_1d(arrays[f"{part}_images"]))
        for kind in ("labels", "domains"):
            numbers = arrays.get(f"{part}_{kind}")
            if numbers is None:
                continue
            if np.shape(numbers) != (count,):
                raise ValueError(
                    f"{name}: {part}_{kind} has shape {list(np.shape(numbers))}, but "
                    f"{part}_images holds {count} images; needed is [{count}]"
                )
            if numbers.dtype.kind not in "iu":
                raise ValueError(
                    f"{name}: {part}_{kind} is {numbers.dtype}; integers from 0 are needed"
                )


def _names(name: str, arrays: Mapping[str, np.ndarray], key: str, kind: str) -> tuple[str, ...]:
    """The names in array `key`, or "0", "1", ... up to the largest number in use."""
    if key not in arrays:
        used = np.concatenate([arrays[f"train_{kind}"], arrays[f"test_{kind}"]])
        return tuple(map(str, range(int(used.max(initial=-1)) + 1)))
    values = arrays[key]
    if values.ndim != 1 or values.dtype.kind != "U":
        raise ValueError(
            f"{name}: {key} is {values.dtype} {list(values.shape)}; one string for each is needed"
        )
    names = tuple(map(str, values))
    if len(set(names)) != len(names):
        twice = next(entry for entry in names if names.count(entry) > 1)
        raise ValueError(f"{name}: {key} holds {twice!r} twice; every name must differ")
    return names


def _numbers(name: str, arrays: Mapping[str, np.ndarray], key: str, bound: int) -> np.ndarray:
    values = arrays[key]
    wrong = values[(values < 0) | (values >= bound)]
    if wrong.size:
        raise ValueError(f"{name}: {key} holds {wrong[0]}; accepted are 0 to {bound - 1}")
    return values


def _pixels(name: str, pixels: np.ndarray, data: settings.Data) -> np.ndarray | images.LazyImages:
    """uint8 [N, H, W, C] in the configured size and channels, converted on demand."""
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"{name} is {pixels.dtype}; uint8 with values 0 to 255 is needed "
            "(for floats in 0..1: (images * 255).round().astype('uint8'))"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
        raise ValueError(
            f"{name} has shape {list(pixels.shape)}; [N, H, W], [N, H, W, 1] or [N, H, W, 3] "
            "is needed"
        )
    if pixels.shape[1:] == (data.image_size, data.image_size, data.channels):
        return pixels

    def read(positions: list[int]) -> Iterator[np.ndarray]:
        return (images.convert(pixels[p], f"{name}[{p}]", data) for p in positions)

    return images.LazyImages(len(pixels), read, data)
