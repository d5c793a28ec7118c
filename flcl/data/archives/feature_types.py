"""The feature types that a prepared TFDS folder may name."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

# The keys of a type in `features.json`: that of old versions, and two spellings of the new one.
_TYPE_KEYS = ("type", "pythonClassName", "python_class_name")


def check(source: str, folder: pathlib.Path) -> None:
    """Refuses a data set with a feature type that is not one of TFDS's own.

    TFDS imports the module of every type that `features.json` names, so a folder from somebody else
    could run code.
    """
    import tensorflow_datasets as tfds

    connector = tfds.features.FeatureConnector
    public = [getattr(tfds.features, name) for name in tfds.features.__all__]
    classes = [cls for cls in public if isinstance(cls, type) and issubclass(cls, connector)]
    known = {f"{cls.__module__}.{cls.__qualname__}" for cls in classes}
    content = (folder / "features.json").read_bytes()
    try:
        named = list(_named_types(json.loads(content)))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source}: {folder / 'features.json'} is damaged ({error}); prepare it again"
        ) from error
    for kind in named:
        if kind not in known:
            raise ValueError(
                f"{source}: {folder / 'features.json'} names the feature type {kind!r}, and only "
                "TFDS's own are read; prepare the data set without this feature"
            )


def _named_types(value: Any) -> Iterator[str]:
    """Every feature type that the content of a `features.json` names, at any depth."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in _TYPE_KEYS and isinstance(entry, str):
                yield entry
            yield from _named_types(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _named_types(entry)
    elif isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        # TFDS stores the content of some types as JSON inside a string.
        with contextlib.suppress(json.JSONDecodeError):
            yield from _named_types(json.loads(value))
