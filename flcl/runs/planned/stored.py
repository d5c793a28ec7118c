"""`plan.json`: the lengths that a run got when it began, chosen from a measurement (`minutes`).

This module needs no JAX.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from flcl import files, settings
from flcl.settings import bridge, formats
from flcl.storage import schema

NAME = "plan.json"

PLANNED = (
    *("phase1.steps", "phase2.steps", "judge.epochs", "judge.images_per_class"),
    *("train.epochs", "train.first_epochs"),
)
"""The keys that a plan may lower. None of them is part of a compiled program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The content of `plan.json`.

    Attributes:
      minutes: `runtime.minutes` when the run began.
      settings: SHA-256 of the settings before they were planned.
      asked: the planned keys before; chosen: and after, by dotted name.
      seconds: what was measured, by name.
    """

    minutes: float
    settings: str
    asked: Mapping[str, float]
    chosen: Mapping[str, float]
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def planned_keys(run: settings.Run) -> dict[str, float]:
    """The values of the keys that a plan may lower, as far as the method has them."""
    known = dict(bridge.keys(type(run)))
    return {name: bridge.value(run, name) for name in PLANNED if name in known}


def identity(run: settings.Run) -> str:
    """SHA-256 of all keys that decide what a run answers."""
    return formats.identity(formats.to_store(run))


def with_lengths(run: settings.Run, chosen: Mapping[str, float]) -> settings.Run:
    """`run` with other values of planned keys; raises `ValueError` for any other key or value."""
    values = bridge.as_dict(run)
    known = planned_keys(run)
    for name, value in chosen.items():
        if name not in known:
            raise ValueError(f"{NAME}: {name!r} is no key that a plan may change")
        section, leaf = name.split(".")
        values[section][leaf] = type(known[name])(value)
    return bridge.from_dict(values)


# Any values will do that no check refuses.
_ANY = {
    **{"phase1.steps": 10**9, "phase2.steps": 10**9, "judge.epochs": 1.0},
    **{"judge.images_per_class": 0, "train.epochs": 1.0, "train.first_epochs": 0.0},
}


def without_lengths(run: settings.Run) -> settings.Run:
    """`run` for the programs of a planned run, which do not depend on the lengths.

    So what was compiled to measure them is used again. A run without a plan stays as it is, and so
    does GUIDE, whose step counts to its own length.
    """
    if not run.runtime.minutes or run.method == "guide":
        return run
    return with_lengths(run, {name: _ANY[name] for name in planned_keys(run)})


def read(workdir: Path) -> Plan | None:
    """The plan of a run; None if it has none. Raises `ValueError` for a damaged file."""
    path = workdir / NAME
    values = files.read_json(path)
    if values is None and not path.exists():
        return None
    return schema.from_json(Plan, values, str(path))


def write(workdir: Path, plan: Plan) -> None:
    """Stores the plan."""
    files.write_json(workdir / NAME, dataclasses.asdict(plan))


def lengths(workdir: Path, run: settings.Run, begun: bool) -> Mapping[str, float] | None:
    """The planned keys of the run in `workdir`, which was asked for with the settings `run`.

    None: nothing is planned yet, or for other settings, and `begun` says that nothing is trained
    yet. A damaged or missing plan of a run that has begun is taken from its `config.json`.

    Raises `ValueError` in one line for a run that began with other lengths, or without a plan.
    """
    try:
        plan = read(workdir)
    except ValueError:
        plan = None
    if not begun:
        minutes = run.runtime.minutes
        same = plan and (plan.minutes, plan.settings) == (minutes, identity(run))
        return plan.chosen if plan and same else None
    if plan is None:
        return _of_config(workdir, run)
    asked = planned_keys(run)
    lines = [f"{k}: {v!r} -> {asked.get(k)!r}" for k, v in plan.asked.items() if asked.get(k) != v]
    if lines:
        raise ValueError(
            f"workdir {workdir} holds a run of another config ({'; '.join(lines)}): choose another "
            "workdir, or use the config of that run"
        )
    return plan.chosen


def _of_config(workdir: Path, run: settings.Run) -> Mapping[str, float]:
    stored = formats.load(workdir)
    if stored is None or type(stored) is not type(run):
        return planned_keys(run)  # the check of the workdir says what is wrong
    if not stored.runtime.minutes:
        raise ValueError(
            f"runtime.minutes={run.runtime.minutes:g}: the run in workdir {workdir} began without "
            "it, and its steps are fixed; leave it out, or choose another workdir"
        )
    return planned_keys(stored)
