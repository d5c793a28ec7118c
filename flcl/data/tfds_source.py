"""Prepared TFDS data sets, read by TFDS's random-access reader and without TensorFlow."""

import contextlib
import hashlib
import io
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flcl import files, hints, settings
from flcl.data import base
from flcl.data.archives import feature_types
from flcl.data.encoded.lazy import EncodedImages
from flcl.storage import paths

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 1024  # records per read in a label scan


class _Part(NamedTuple):
    """Records of one TFDS split, and the rows that are used."""

    name: str
    records: Any
    labels: np.ndarray
    domains: np.ndarray | None
    rows: np.ndarray


def load_tfds(name: str, data: settings.Data) -> base.Source:
    """Source from the TFDS data set `name`, `name/config`, or either with `:version`.

    If the data set is prepared in `data.tfds_dir` as ArrayRecord, it is read from there (the newest
    version unless one is named). If not, the data sets in `builders.BUILDERS` are prepared from
    their official archives in `data.manual_dir`. A second class label with the name "domain" gives
    the domains. The test set is `test` or else `validation`, if it has labels; otherwise a hash
    chooses the share `data.test_fraction` of `train`. `ValueError` says what to do if nothing is
    prepared, no image has a class label, or the folder names a feature type that is not TFDS's own.
    """
    import tensorflow_datasets as tfds  # the import takes a second, and only this source needs it

    source = f"tfds:{name}"
    folder = _find(name, data)
    feature_types.check(source, folder)
    try:
        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, builder.info.splits
    except OSError:  # may pass, and is no damage
        raise
    except Exception as error:  # damaged metadata raises anything from KeyError to ParseError
        line = f"{source}: {folder} is damaged ({files.reason(error)}); prepare it again"
        raise ValueError(line) from error
    image_key, label_key = _keys(source, builder.info)
    domain_key = _domain_key(features, label_key)
    if "train" not in splits:
        raise ValueError(
            f"{source}: has no split 'train' (it has {', '.join(sorted(splits)) or 'none'})"
        )
    parts = {}
    for name in ("train", "test", "validation"):
        if name in splits:
            records = _open(source, folder, builder, name, image_key)
            keys = [label_key] + ([domain_key] if domain_key else [])
            labels, *domains = _columns(records, keys, folder, name)
            rows = np.arange(len(labels))
            parts[name] = _Part(name, records, labels, domains[0] if domains else None, rows)
    train, test = _train_and_test(source, parts, data.test_fraction)
    return base.Source(
        source,
        _split(source, folder, train, image_key, data),
        _split(source, folder, test, image_key, data),
        tuple(features[label_key].names),
        tuple(features[domain_key].names) if domain_key else (),
    )


def _find(name: str, data: settings.Data) -> pathlib.Path:
    """The folder of the data set; prepares it first if needed and possible."""
    tfds_dir = paths.local(data.tfds_dir, "data.tfds_dir")
    plain, _, version = name.partition(":")
    if version and not _VERSION.fullmatch(version):
        raise ValueError(f"data.source='tfds:{name}': version {version!r} is not like 1.0.0")
    folder = tfds_dir / plain
    versions = {path.name: path for path in _folders(folder) if _is_prepared(path)}
    if version in versions:
        return versions[version]
    if versions and not version:
        return versions[max(versions, key=lambda entry: tuple(map(int, entry.split("."))))]
    configs = sorted(p.name for p in _folders(folder) if any(map(_is_prepared, _folders(p))))
    if configs:
        raise ValueError(
            f"tfds:{name}: a configuration is needed, such as tfds:{plain}/{configs[0]} "
            f"(prepared are {', '.join(configs)})"
        )
    return _prepare(plain, version, versions, data, tfds_dir)


def _prepare(plain: str, version: str, versions, data: settings.Data, tfds_dir) -> pathlib.Path:
    from flcl.data.archives import builders  # imports TFDS

    builder = builders.BUILDERS.get(plain)
    if builder and version in ("", str(builder.VERSION)):
        return builders.prepare(plain, paths.local(data.manual_dir, "data.manual_dir"), tfds_dir)
    have = f"prepared are {', '.join(sorted(versions))}" if versions else "not prepared"
    known = sorted({*builders.BUILDERS, *(path.name for path in _folders(tfds_dir))})
    hint = "" if versions else hints.did_you_mean(plain, known)
    name = f"{plain}:{version}" if version else plain
    raise ValueError(
        f"tfds:{name}: {have} in {tfds_dir}; prepare it where TensorFlow is installed (`tfds build "
        f"{plain} --file_format=array_record`) and copy its folder there.{hint}"
    )


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _is_prepared(folder: pathlib.Path) -> bool:
    # TFDS names a folder by its version only after all its files are written.
    files = ("dataset_info.json", "features.json")
    return bool(_VERSION.fullmatch(folder.name)) and all((folder / f).is_file() for f in files)


def _keys(source: str, info: Any) -> tuple[str, str]:
    """Names of the image feature and the label feature; `info` is a `DatasetInfo`."""
    import tensorflow_datasets as tfds

    features = dict(sorted(info.features.items()))  # the original order differs between processes
    chosen = []
    for kind, usual in ((tfds.features.Image, "image"), (tfds.features.ClassLabel, "label")):
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        if not keys:
            raise ValueError(
                f"{source}: has no {kind.__name__} feature (it has {', '.join(features)}); "
                "images with class labels are needed"
            )
        keys.sort(
            key=lambda key: key == "domain"
        )  # "domain" is the label only if there is no other
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
    """Random-access records of one split; the images are encoded bytes."""
    import tensorflow_datasets as tfds

    decoders = {image_key: tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(part, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"{source}: {folder} is prepared as {builder.info.file_format.value}; prepare it with "
            "--file_format=array_record, which can be read in any order"
        ) from error


def _train_and_test(source: str, parts: dict[str, _Part], fraction: float) -> tuple[_Part, _Part]:
    train = parts["train"]
    if train.labels.min(initial=0) < 0:
        raise ValueError(f"{source}: has training images without a label; all need one")
    for name in ("test", "validation"):
        # Published test sets often hide their labels (-1).
        if name in parts and parts[name].labels.min(initial=0) >= 0:
            return train, parts[name]
    tested = np.array([base.hashed_place(str(row)) < fraction for row in train.rows], bool)
    return train._replace(rows=train.rows[~tested]), train._replace(rows=train.rows[tested])


class _Records:
    """The encoded images of one split; see `lazy.Encoded`."""

    def __init__(self, source: str, folder: pathlib.Path, part: _Part, image_key: str):
        self.where, self._part, self._key = source, part, image_key
        self.root = folder
        self.names = [f"{part.name}[{row}]" for row in part.rows.tolist()]
        self._state = _state(folder)

    def read(self, positions: list[int]) -> Iterator[bytes]:
        """The content of each image."""
        # All records in one call, which is several times as fast as one by one.
        rows = self._part.rows[positions].tolist()
        for record in self._part.records.__getitems__(rows):
            yield record[self._key]

    def open(self, position: int) -> io.BytesIO:
        """One image."""
        return io.BytesIO(next(self.read([position])))

    def state(self, position: int) -> str:
        """The state of all record files."""
        del position
        return self._state


def _split(
    source: str, folder: pathlib.Path, part: _Part, image_key: str, data: settings.Data
) -> base.Split:
    domains = None if part.domains is None else part.domains[part.rows]
    if domains is not None and domains.min(initial=0) < 0:
        raise ValueError(f"{source}: {part.name} has images without a domain; all need one")
    images = EncodedImages(_Records(source, folder, part, image_key), data)
    return base.make_split(images, part.labels[part.rows], domains)


def _columns(records: Any, keys: list[str], folder: pathlib.Path, part: str) -> list[np.ndarray]:
    """The values of each of `keys`, int32 [N], read without decoding an image.

    They are read once and then stored in files beside the records.
    """
    state = _state(folder)
    caches = [folder / f"flcl_{key}_{part}_{state}.npy" for key in keys]
    cached = [_cached(cache, len(records)) for cache in caches]
    if all(column is not None for column in cached):
        return cached
    columns = np.empty((len(keys), len(records)), np.int32)
    for start in range(0, len(records), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(records)))
        values = [[record[key] for key in keys] for record in records.__getitems__(list(rows))]
        columns[:, rows.start : rows.stop] = np.transpose(values)
    for cache, column in zip(caches, columns, strict=True):
        # If the folder is not writable, every run scans the records again, and that is all.
        with contextlib.suppress(OSError):
            files.write(cache, lambda file, column=column: np.save(file, column), shared=True)
    return list(columns)


def _cached(cache: pathlib.Path, count: int) -> np.ndarray | None:
    try:
        column = np.load(files.regular(cache), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None  # missing or damaged: the caller reads the records again
    return column if column.shape == (count,) else None


def _state(folder: pathlib.Path) -> str:
    """A string that changes whenever a record file changes."""
    files = sorted(path for path in folder.iterdir() if "array_record" in path.name)
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
