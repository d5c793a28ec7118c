"""Which keys of two configs differ, and which of them decide the results of a run."""

import functools

from flcl import settings
from flcl.settings import bridge


def differing_keys(old: dict, new: dict, prefix: str = "") -> list[str]:
    """`name: old -> new` for every key that differs between two `as_dict` trees."""
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, "(absent)"), new.get(name, "(absent)")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differing_keys(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} -> {after!r}")
    return lines


def decisive(values: dict, prefix: str = "") -> dict:
    """An `as_dict` tree without the keys that change no result (`free` in `keys.key`)."""
    return {
        name: decisive(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in values.items()
        if f"{prefix}{name}" not in _free_keys()
    }


@functools.cache
def _free_keys() -> frozenset[str]:
    # A key that is free in one method is free in all of them.
    every = [entry for cls in settings.RUNS.values() for entry in bridge.keys(cls)]
    return frozenset(name for name, field in every if field.metadata["free"])
