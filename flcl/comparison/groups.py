"""Runs that differ only in seed and order are a group, which has a name: a row of the table."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flcl.comparison.stored import StoredRun

_REPEATS = ("seed", "stream.class_order", "stream.domain_order")


class Group(NamedTuple):
    """Runs with equal settings, but for seed and order.

    Attributes:
      name: its row in the table.
      runs: by seed and order.
    """

    name: str
    runs: Mapping[tuple, StoredRun]


def make(runs: Sequence[StoredRun]) -> list[Group]:
    """The groups of some runs, in the order of their first runs.

    Raises `ValueError` for two workdirs with the same run.
    """
    grouped: dict[frozenset, dict[tuple, StoredRun]] = {}
    for run in runs:
        keys = {k: v for k, v in run.keys().items() if k not in _REPEATS}
        members = grouped.setdefault(frozenset(keys.items()), {})
        other = members.setdefault(run.repeat, run)
        if other is not run:
            raise ValueError(
                f"{other.workdir} and {run.workdir} hold the same run: name only one of them"
            )
    names = _names([dict(keys) for keys in grouped], [_title(each) for each in grouped.values()])
    return [Group(name, members) for name, members in zip(names, grouped.values(), strict=True)]


def _title(members: Mapping[tuple, StoredRun]) -> str:
    return next(iter(members.values())).settings.name


def _names(keys: Sequence[Mapping], titles: Sequence[str]) -> list[str]:
    """A name for each group: its title, and what tells it from others with the same title."""
    # The titles of the configs begin with their data, such as `digits: frozen`.
    heads = {title.partition(": ")[0] for title in titles}
    if len(heads) == 1 and all(": " in title for title in titles):
        titles = [title.partition(": ")[2] for title in titles]
    named = []
    for place, title in enumerate(titles):
        twins = [i for i, other in enumerate(titles) if other == title]
        if len({keys[i]["method"] for i in twins}) > 1:
            title = f"{title}, {keys[place]['method']}" if title else str(keys[place]["method"])
            twins = [i for i in twins if keys[i]["method"] == keys[place]["method"]]
        # Sorted, because a name must be the same in every process.
        named_keys = sorted(keys[place])
        differing = [key for key in named_keys if len({repr(keys[i].get(key)) for i in twins}) > 1]
        named.append(", ".join([title, *(f"{k}={_text(keys[place][k])}" for k in differing)]))
    return named


def _text(value) -> str:
    """A value as on the command line; of a path only the last part."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return os.path.basename(value) or value if isinstance(value, str) else str(value)
