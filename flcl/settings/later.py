"""The keys that a task may change that was not planned: they touch nothing that was learned."""

import fnmatch
from collections.abc import Mapping

from flcl import hints, settings
from flcl.settings import bridge

KEYS = (
    # How the images of the task are read; not their shape, which all tasks share.
    *("data.resize", "data.test_fraction", "data.bad_images", "data.flip"),
    *("data.train_per_class", "data.test_per_class"),
    # How the task trains.
    *("phase2.*", "straighten.*", "adapter.warm_start", "adapter.sigma", "replay.images_per_class"),
    *("train.epochs", "train.batch_size", "train.optimizer", "train.head_learning_rate"),
    *("train.learning_rate", "train.schedule", "train.warmup", "train.clip_norm"),
    *("train.min_crop", "train.eval_batch_size", "lora.later_factor", "prompt.later_factor"),
)
"""Dotted names, or all keys of a group. Keys that change no result may be changed, too."""


def changed_run(run: settings.Run, changed: Mapping[str, object]) -> settings.Run:
    """The settings of a later task: `run` with the keys of `changed`, dotted name -> value.

    Raises `ValueError` for a key that the method does not have, for one that would change earlier
    tasks, and for a value that is not accepted.
    """
    values = bridge.as_dict(run)
    fields = dict(bridge.keys(type(run)))
    for name, value in changed.items():
        if name not in fields:
            raise bridge.unread(name, list(fields), run.method)
        if not fields[name].metadata["free"] and not accepts(name):
            mine = [each for each in fields if accepts(each)]
            raise ValueError(
                f"{name}={hints.quoted(value)}: belongs to all tasks, and a later task cannot "
                f"change it; accepted are {', '.join(mine)}"
            )
        *groups, leaf = name.split(".")
        group = values
        for each in groups:
            group = group[each]
        group[leaf] = list(value) if isinstance(value, tuple) else value
    return bridge.from_dict(values)


def with_free(run: settings.Run, other: settings.Run) -> settings.Run:
    """`run` with the keys of `other` that change no result."""
    free = {n: bridge.value(other, n) for n, f in bridge.keys(type(run)) if f.metadata["free"]}
    return changed_run(run, free)


def accepts(name: str) -> bool:
    """Whether a later task may change the key `name` and with it its own results."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in KEYS)


def differing(run: settings.Run, other: settings.Run) -> dict[str, object]:
    """The keys that decide results and in which `other` differs from `run`, with their values."""
    pairs = [(name, bridge.value(run, name), bridge.value(other, name)) for name in _decisive(run)]
    return {name: value for name, before, value in pairs if value != before}


def _decisive(run: settings.Run) -> list[str]:
    return [name for name, field in bridge.keys(type(run)) if not field.metadata["free"]]
