"""Prepared TFDS data sets, read by TFDS's random-access reader and never through TensorFlow."""

import contextlib
import hashlib
import io
import pathlib
import re
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flcl import hints, settings
from flcl.data import base, images

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 1024  # records read together in a label scan


class _Part(NamedTuple):
    """Records of one TFDS split, and which of them are used."""

    name: str
    records: Any
    labels: np.ndarray
    domains: np.ndarray | None
    rows: np.ndarray


def load_tfds(name: str, data: settings.Data) -> base.Source:
    """Source from the TFDS data set `name`, `name/config`, or either with `:version`.

    A data set that is prepared in `data.tfds_dir` as ArrayRecord is read as it is (the newest
    version unless one is named). Those of `builders.BUILDERS` are prepared from their official
    archives in `data.manual_dir` when they are not. A class label named "domain" beside the one
    that is learned gives the domains. The test set is the first of `test`
    and `validation` with labels, else the share `data.test_fraction` hashed from `train`. Raises
    `ValueError` saying what to do when nothing is prepared or no image has a class label.
    """
    import tensorflow_datasets as tfds  # a second to import, and only this source needs it

    source = f"tfds:{name}"
    folder = _find(name, data)
    try:
        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, builder.info.splits
    except Exception as error:  # damaged metadata raises anything from KeyError to ParseError
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}: {folder} is damaged ({reason}); prepare it again") from error
    image_key, label_key = _keys(source, builder.info)
    domain_key = _domain_key(features, label_key)
    if "train" not in splits:
        raise ValueError(
            f"{source}: has no split 'train' (it has {', '.join(sorted(splits)) or 'none'})"
        )
    found = {}
    for part in ("train", "test", "validation"):
        if part in splits:
            records = _open(source, folder, builder, part, image_key)
            keys = [label_key] + ([domain_key] if domain_key else [])
            labels, *domains = _columns(records, keys, folder, part)
            rows = np.arange(len(labels))
            found[part] = _Part(part, records, labels, domains[0] if domains else None, rows)
    train, test = _train_and_test(source, found, data.test_fraction)
    return base.Source(
        source,
        _split(source, train, image_key, data),
        _split(source, test, image_key, data),
        tuple(features[label_key].names),
        tuple(features[domain_key].names) if domain_key else (),
    )


def _find(name: str, data: settings.Data) -> pathlib.Path:
    """Folder of the prepared data set, preparing it first if that is possible."""
    tfds_dir = pathlib.Path(data.tfds_dir).expanduser()
    plain, _, version = name.partition(":")
    if version and not _VERSION.fullmatch(version):
        raise ValueError(f"data.source='tfds:{name}': version {version!r} is not like 1.0.0")
    folder = tfds_dir / plain
    found = {path.name: path for path in _folders(folder) if _is_prepared(path)}
    if version in found:
        return found[version]
    if found and not version:
        return found[max(found, key=lambda entry: tuple(map(int, entry.split("."))))]
    configs = sorted(p.name for p in _folders(folder) if any(map(_is_prepared, _folders(p))))
    if configs:
        raise ValueError(
            f"tfds:{name}: a configuration is needed, such as tfds:{plain}/{configs[0]} "
            f"(prepared are {', '.join(configs)})"
        )
    return _prepare(plain, version, found, data, tfds_dir)


def _prepare(plain: str, version: str, found, data: settings.Data, tfds_dir) -> pathlib.Path:
    from flcl.data.archives import builders  # imports TFDS

    own = builders.BUILDERS.get(plain)
    if own and version in ("", str(own.VERSION)):
        return builders.prepare(plain, pathlib.Path(data.manual_dir).expanduser(), tfds_dir)
    have = f"prepared are {', '.join(sorted(found))}" if found else "not prepared"
    known = sorted({*builders.BUILDERS, *(path.name for path in _folders(tfds_dir))})
    hint = "" if found else hints.did_you_mean(plain, known)
    name = f"{plain}:{version}" if version else plain
    raise ValueError(
        f"tfds:{name}: {have} in {tfds_dir}; prepare it where TensorFlow is installed (`tfds build "
        f"{plain} --file_format=array_record`) and copy its folder there.{hint}"
    )


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _is_prepared(folder: pathlib.Path) -> bool:
    # TFDS gives a folder its plain version number when, and only when, everything is in it.
    files = ("dataset_info.json", "features.json")
    return bool(_VERSION.fullmatch(folder.name)) and all((folder / f).is_file() for f in files)


def _keys(source: str, info: Any) -> tuple[str, str]:
    """Names of the image and of the label among the features; `info` is a `DatasetInfo`."""
    import tensorflow_datasets as tfds

    features = dict(sorted(info.features.items()))  # their own order differs between processes
    chosen = []
    for kind, usual in ((tfds.features.Image, "image"), (tfds.features.ClassLabel, "label")):
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        if not keys:
            raise ValueError(
                f"{source}: has no {kind.__name__} feature (it has {', '.join(features)}); "
                "images with class labels are needed"
            )
        keys.sort(key=lambda key: key == "domain")  # what is learned, unless there is nothing else
        first = [*(info.supervised_keys or ()), usual, *keys]
        chosen.append(next(key for key in first if key in keys))
    image = features[chosen[0]]
    if image.np_dtype != np.uint8:
        raise ValueError(f"{source}: image feature is {image.np_dtype}; uint8 is needed")
    return chosen[0], chosen[1]


def _domain_key(features: Any, label_key: str) -> str | None:
    import tensorflow_datasets as tfds

    given = "domain" in features and isinstance(features["domain"], tfds.features.ClassLabel)
    return "domain" if given and label_key != "domain" else None


def _open(source: str, folder: pathlib.Path, builder: Any, part: str, image_key: str) -> Any:
    """Random-access records of one split, images as encoded bytes."""
    import tensorflow_datasets as tfds

    decoders = {image_key: tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(part, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"{source}: {folder} is prepared as {builder.info.file_format.value}; prepare it with "
            "--file_format=array_record, which can be read in any order"
        ) from error


def _train_and_test(source: str, found: dict[str, _Part], fraction: float) -> tuple[_Part, _Part]:
    train = found["train"]
    if train.labels.min(initial=0) < 0:
        raise ValueError(f"{source}: has training images without a label; all need one")
    for part in ("test", "validation"):
        # Published test sets often hide their labels (-1).
        if part in found and found[part].labels.min(initial=0) >= 0:
            return train, found[part]
    tested = np.array([base.hashed_place(str(row)) < fraction for row in train.rows], bool)
    return train._replace(rows=train.rows[~tested]), train._replace(rows=train.rows[tested])


def _split(source: str, part: _Part, image_key: str, data: settings.Data) -> base.Split:
    def read(positions: list[int]) -> Iterator[np.ndarray]:
        rows = part.rows[positions].tolist()
        # All at once: reading records one by one takes several times as long.
        for row, record in zip(rows, part.records.__getitems__(rows), strict=True):
            name = f"{source}: {part.name}[{row}]"
            yield images.decode(io.BytesIO(record[image_key]), name, data)

    domains = None if part.domains is None else part.domains[part.rows]
    if domains is not None and domains.min(initial=0) < 0:
        raise ValueError(f"{source}: {part.name} has images without a domain; all need one")
    lazy = images.LazyImages(len(part.rows), read, data)
    return base.make_split(lazy, part.labels[part.rows], domains)


def _columns(records: Any, keys: list[str], folder: pathlib.Path, part: str) -> list[np.ndarray]:
    """int32 [N] of each of `keys`, read without decoding an image.

    Once: copies are left beside the records.
    """
    state = _state(folder)
    caches = [folder / f"flcl_{key}_{part}_{state}.npy" for key in keys]
    cached = [_cached(cache, len(records)) for cache in caches]
    if all(column is not None for column in cached):
        return cached
    columns = np.empty((len(keys), len(records)), np.int32)
    for start in range(0, len(records), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(records)))
        found = [[record[key] for key in keys] for record in records.__getitems__(list(rows))]
        columns[:, rows.start : rows.stop] = np.transpose(found)
    for cache, column in zip(caches, columns, strict=True):
        _write_atomically(cache, column)
    return list(columns)


def _cached(cache: pathlib.Path, count: int) -> np.ndarray | None:
    try:
        column = np.load(cache, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None  # none yet, or a damaged one: read anew
    return column if column.shape == (count,) else None


def _state(folder: pathlib.Path) -> str:
    """Changes whenever a record file does."""
    files = sorted(path for path in folder.iterdir() if "array_record" in path.name)
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


def _write_atomically(path: pathlib.Path, labels: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # A folder that cannot be written to costs a scan each time, nothing else.
    with contextlib.suppress(OSError):
        try:
            with temporary.open("wb") as file:
                np.save(file, labels)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
