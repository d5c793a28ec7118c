"""The rows of a sweep: which words after the colon of `--config` each method stands for."""

import itertools
from typing import NamedTuple

from flcl import hints, settings
from flcl.settings import config_file
from flcl.settings.config_file import ArgumentError

DEFAULT = "default"
"""The row of the config without any word."""


class Row(NamedTuple):
    """A method of a sweep.

    Attributes:
      name: as the user wrote it.
      spec: `NAME:ARG` of the config with the words of the row.
      words: further words of the command line, such as `--config.method=finetune`.
    """

    name: str
    spec: str
    words: tuple[str, ...] = ()


def row(spec: str, name: str) -> Row:
    """The row `name` of the config `spec`.

    name: words that the config takes, joined by `+` (`paper+no_drs`, `family=shift`); a word alone
    may be the value of `baseline=`, and a method's name is accepted where the config takes no such
    word. `default` is the config as it is. Raises `ValueError` as the config does, or for a name
    that is nothing of these.
    """
    file, argument = config_file.split(spec)
    if not name:
        raise ValueError("--methods: an empty name; the config as it is is called default")
    if name == DEFAULT:
        config_file.load_config(spec)
        return Row(name, spec)
    refused = None
    for words in _readings(name):
        tried = f"{file}:{','.join(filter(None, [argument, *words]))}"
        try:
            config_file.load_config(tried)
        except ArgumentError as error:
            refused = refused or error
            continue
        return Row(name, tried)
    if name in settings.RUNS:
        return Row(name, spec, (f"--config.method={name}",))
    near = hints.did_you_mean(name, [DEFAULT])
    raise ValueError(f"--methods={hints.quoted(name)}: {refused}{near}")


def _readings(name: str) -> itertools.product:
    """The words of a row, and then the same with `baseline=` before some of them."""
    choices = [(w,) if "=" in w else (w, f"baseline={w}") for w in name.split("+")]
    return itertools.product(*choices)
