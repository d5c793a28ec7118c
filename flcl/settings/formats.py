"""The format of `config.json`, and how older formats are read.

Each format adds some keys to the one before it and removes some. To add a key, declare it and
write one line into `ADDED` under the next format. To remove a key, write a line into `REMOVED`.
The name of a key never changes.
"""

from pathlib import Path

from flcl import files, settings
from flcl.settings import bridge

# Dotted key -> the value that every run of an older format used although it was not a key then.
# Only a method that has the key gets it.
ADDED: dict[int, dict[str, object]] = {
    2: {},
    3: {
        "judge.stages": 4,
        "data.verify": "off",
        "data.bad_images": "error",
    },
}

_TRAINING = ("epochs", "batch_size", "optimizer", "head_learning_rate")
_TRAINING += ("schedule", "warmup", "clip_norm", "min_crop")

# Dotted key -> the methods that lost it, because they never read it.
REMOVED: dict[int, dict[str, tuple[str, ...]]] = {
    2: {
        "stream.domain_order": ("funlora", "finetune", "generative_replay"),
        "data.flip": ("class_mean",),
        "model.remat": ("class_mean", "linear_probe"),
        "model.trunk_dtype": ("vit_finetune",),
        "train.learning_rate": ("class_mean", "linear_probe"),
        **{f"train.{name}": ("class_mean",) for name in _TRAINING},
    }
}

FORMAT = max(ADDED)
"""The format that this version writes. Files without a format number have format 1."""


def to_store(run: settings.Run) -> dict:
    """The content of `config.json`: the keys of a run, and `format`."""
    return {"format": FORMAT, **bridge.as_dict(run)}


def read(workdir: Path) -> dict | None:
    """The keys in the `config.json` of a run, converted to the format of this version.

    They have the form of `bridge.as_dict`; None if there is no file. Raises `ValueError` in one
    line for a newer format and for a file without settings.
    """
    stored = files.read_json(workdir / "config.json")
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise ValueError(f"workdir {workdir} has a config.json without settings: delete it")
    try:
        return upgraded(stored)
    except ValueError as error:
        raise ValueError(f"workdir {workdir} {error}") from None


def upgraded(stored: dict) -> dict:
    """The keys of a `config.json` of any format up to `FORMAT`, converted to `FORMAT`.

    Raises `ValueError` for a newer format, and for one that is not a positive whole number.
    """
    # The caller keeps the settings as they are stored.
    values = _copy(stored)
    number = values.pop("format", 1)
    if type(number) is not int or number < 1:  # because `True == 1`
        raise ValueError(
            f"has the format {number!r} in its config.json: a whole number from 1 to {FORMAT} is "
            "needed"
        )
    if number > FORMAT:
        raise ValueError(
            f"was made by a newer flcl (format {number}; this one reads up to {FORMAT}): update "
            "flcl"
        )
    method = values.get("method")
    # An unknown method is refused later, with a list of the known ones.
    known = dict(bridge.keys(settings.RUNS[method])) if method in settings.RUNS else {}
    # One format after the other, in the order in which the keys changed.
    for later in range(number + 1, FORMAT + 1):
        for name, methods in REMOVED.get(later, {}).items():
            if method in methods:
                _drop(values, name.split("."))
        for name, value in ADDED.get(later, {}).items():
            if name in known:
                _add(values, name.split("."), value)
    return values


def _copy(values: dict) -> dict:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in values.items()}


def _add(values: dict, path: list[str], value) -> None:
    """Adds a key, and its group if that is missing."""
    *groups, leaf = path
    for group in groups:
        values = values.setdefault(group, {})
    values.setdefault(leaf, value)


def _drop(values: dict, path: list[str]) -> None:
    """Drops a key, and its group if that is then empty."""
    name, *rest = path
    if not rest:
        values.pop(name, None)
    elif name in values:
        _drop(values[name], rest)
        if not values[name]:
            del values[name]
