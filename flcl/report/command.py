"""The settings of a run: keys that differ from the defaults, and the command that repeats it."""

import shlex
from collections.abc import Mapping
from typing import NamedTuple

from flcl import called
from flcl.settings import bridge

CONFIG = "defaults"
"""The config with the defaults of a method, because a run does not store its config file."""


class Change(NamedTuple):
    """A key of a run whose value is not its default; both values as on a command line."""

    key: str
    value: str
    default: str


def changes(config: Mapping) -> list[Change]:
    """Keys of a `config.json` that differ from the defaults of its method, in order.

    A key of an older run that no longer exists is left out, because no command can set it.
    """
    run = bridge.run_class(config["method"])(method=config["method"])
    changed = []
    for name, _ in bridge.keys(type(run)):
        value, default = _value(config, name), _text(bridge.value(run, name))
        if value is not None and _text(value) != default:
            changed.append(Change(name, _text(value), default))
    return changed


def command(config: Mapping, workdir: str = "runs/again") -> str:
    """The shell command that trains a run with the settings of a `config.json`."""
    words = [*called.program("train").split(), f"--config={CONFIG}:{config['method']}"]
    # Lengths that were planned are keys of their own; planning again would change them.
    changed = [each for each in changes(config) if each.key != "runtime.minutes"]
    words += [f"--config.{key}={value}" for key, value, _ in changed]
    return " ".join(map(shlex.quote, [*words, f"--workdir={workdir}"]))


def _value(config: Mapping, name: str):
    """The value of a dotted key; None if an older run has no such key."""
    for level in name.split("."):
        config = config.get(level) if isinstance(config, Mapping) else None
    return config


def _text(value) -> str:
    """A value in the form of the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "()"
    return str(value)
