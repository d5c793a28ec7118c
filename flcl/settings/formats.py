"""The format of `config.json`, and how older formats are read.

Each format adds some keys to the one before it and removes some. To add a key, declare it and
write one line into `ADDED` under the next format. To remove a key, write a line into `REMOVED`.
The name of a key never changes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flcl import files, settings
from flcl.settings import bridge


class ByMethod(NamedTuple):
    """A value that depends on the method: `values` by method, `others` for all others."""

    values: Mapping[str, object]
    others: object


# Dotted key -> the value that every run of an older format used although it was not a key then.
# Only a method that has the key gets it.
ADDED: dict[int, dict[str, object]] = {
    2: {},
    3: {
        "data.verify": "off",
        "data.bad_images": "error",
        "judge.stages": 4,
        "lora.magnitudes": "per_map",
        "model.registers": 0,
        "model.position_resize": "bicubic",
    },
    4: {
        "head": ByMethod({"class_mean": "class_mean"}, "linear"),
        "heads.fit": ["linear", "class_mean"],
        "heads.means": "class",
        "heads.shrinkage": 0.3,
        "heads.holdout": 0.0,
        "ridge.width": 0,
        "ridge.penalty": 1.0,
        "ridge.rule": "relative",
        "ridge.centred": True,
        "ridge.unit": True,
        "gaussian.rank": 16,
        "gaussian.weight": 0.2,
        "drift.correction": "none",
        "drift.ridge": 0.1,
        "drift.diagnose": False,
        "train.first_epochs": 0.0,
        "train.loss": "local",
        "train.scale": 20.0,
        "train.margin": 0.0,
        "lora.bases": "learned",
        "lora.coverage": False,
        "lora.capacity": 0,
        "lora.grow": 0.5,
        "prompt.init": "normal",
        "prompt.average": False,
        "model.features": "cls",
        "drift.images": "",
        "memory.generator": "",
        "memory.sha256": "",
        "memory.use": "map",
        "memory.per_class": 100,
    },
    5: {"model.weights": "", "model.sha256": ""},
    6: {
        "drift.sha256": "",
        "judge.features": "judge",
        "judge.metrics": [],
        "model.keep_lower": False,
        "sample.grid": "uniform",
        "sample.guidance": 1.0,
    },
    7: {
        "runtime.minutes": 0.0,
        "adapter.record_ranks": 0,
        "straighten.steps": 0,
        "straighten.pairs": 500,
        "straighten.num_steps": 8,
        "straighten.learning_rate": 0.0,
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

NAME = "config.json"

_PLACES = ("source", "tfds_dir", "manual_dir", "memory_gib")  # of the section `data`
_ADVICE = "move it away and repeat the command that trained the run, which writes it again"

FORMAT = max(ADDED)
"""The format that this version writes. Files without a format number have format 1."""


def to_store(run: settings.Run) -> dict:
    """The content of `config.json`: the keys of a run, and `format`."""
    return {"format": FORMAT, **bridge.as_dict(run)}


class NewerError(ValueError):
    """The run was made by a newer version."""


def identity(values: Mapping) -> str:
    """SHA-256 of the keys of a `config.json` that decide what a run answers.

    The places of data, the title and how a run works on a machine may change. This list is fixed,
    so that a file keeps its digest in later versions.
    """
    kept = {name: value for name, value in values.items() if name not in ("runtime", "name")}
    if isinstance(data := values.get("data"), dict):
        kept["data"] = {name: value for name, value in data.items() if name not in _PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read(workdir: Path) -> dict | None:
    """The keys in the `config.json` of a run, converted to the format of this version.

    They have the form of `bridge.as_dict`; None if there is no file. Raises `NewerError` for a
    newer format and `ValueError` for a file without settings, both in one line.
    """
    stored = stored_keys(workdir)
    if stored is None:
        return None
    try:
        return upgraded(stored)
    except ValueError as error:
        raise type(error)(f"workdir {workdir} {error}") from None


def load(workdir: Path) -> settings.Run | None:
    """The settings of a run, checked; None if there is no `config.json`. Raises as `read` does."""
    values = read(workdir)
    if values is None:
        return None
    try:
        return bridge.from_dict(values)
    except ValueError as error:
        # A group of keys is shown in several lines.
        raise ValueError(f"{workdir / NAME}: {files.reason(error)}") from None


def stored_keys(workdir: Path) -> dict | None:
    """The content of a `config.json` as it is; None if there is no file.

    `ValueError` if it is no object, if it names no method, or if a group of keys is no object.
    """
    path = workdir / NAME
    try:
        stored = files.read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: {_ADVICE}") from None
    if stored is None and not path.exists():  # and not a file that contains null
        return None
    if not isinstance(stored, dict) or not isinstance(stored.get("method"), str):
        raise ValueError(f"{path} has no settings of a run: {_ADVICE}")
    for name in _groups(stored["method"]):
        values = stored
        for level in name.split("."):
            # A group that is missing is named later, with the key that is missing.
            values = values.get(level, {})
            if not isinstance(values, dict):
                raise ValueError(f"{path}: {name} is {values!r}, a group of keys is needed")
    return stored


def _groups(method: str) -> set[str]:
    """The dotted names of all groups of keys of a method."""
    known = bridge.keys(settings.RUNS[method]) if method in settings.RUNS else ()
    return {name.rpartition(".")[0] for name, _ in known} - {""}


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
        raise NewerError(
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
            if isinstance(value, ByMethod):
                value = value.values.get(method, value.others)
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
