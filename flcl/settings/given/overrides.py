"""The settings of a run from a config and the keys that a user changes, as on a command line."""

import os
from collections.abc import Mapping

import ml_collections

from flcl import hints, settings
from flcl.settings import bridge, config_file


def load_config(
    config: str | os.PathLike[str], overrides: Mapping[str, object] | None = None
) -> settings.Run | settings.Combined:
    """Settings of a run from a config, with some keys changed.

    Args:
      config: the name of a config that comes with flcl, such as `funlora_digits`, or the path of a
        Python file that ends in .py; both may have an argument, such as `funlora_digits:smoke`.
      overrides: new values by dotted key, such as `{"phase1.steps": 300}`; `method` chooses
        another method, and the keys are those of that method.

    Raises `ValueError` in one line, as the command line says it: for an unknown config, a file that
    is broken, a key that the method does not read (with the nearest known key), a value of a wrong
    type or outside its range, and for values that do not fit each other.
    """
    spec = os.fspath(config) if isinstance(config, os.PathLike) else config
    if not isinstance(spec, str):
        raise ValueError(
            f"config={hints.quoted(config)}: a name such as 'funlora_digits' or the path of a file "
            "is needed"
        )
    given = config_file.load_config(spec)
    refused = bridge.errors(given)
    return frozen(_changed(given, overrides or {}), spec, refused)


def frozen(
    edited: ml_collections.ConfigDict, spec: str, refused: list[str]
) -> settings.Run | settings.Combined:
    """The settings of an edited config. refused: what is wrong with the config `spec` by itself."""
    try:
        return bridge.freeze(edited)
    except ValueError as error:
        if str(error) in refused:
            raise ValueError(f"--config={hints.quoted(spec)}: {error}") from None
        raise


def with_methods(
    config: ml_collections.ConfigDict, methods: Mapping[str | None, str]
) -> ml_collections.ConfigDict:
    """`config` with other methods: by the name of one of its two runs, None = it is one run.

    This comes before all other keys, because the method decides which keys exist.
    """
    for part, method in methods.items():
        config = bridge.switched(config, part, method)
    return config


def check_keys(config: ml_collections.ConfigDict, names: list[str]) -> None:
    """Raises `ValueError` for a name that is no key of `config`, with the nearest one."""
    known = [key for key, _ in bridge.keys(bridge.class_of(config))]
    for name in names:
        if name not in known:
            raise bridge.unread(str(name), known, config.get("method", "combined"))


def _changed(
    config: ml_collections.ConfigDict, overrides: Mapping[str, object]
) -> ml_collections.ConfigDict:
    if not isinstance(overrides, Mapping):
        raise ValueError(
            f"overrides={hints.quoted(overrides)}: a dictionary is needed, such as "
            "{'phase1.steps': 300}"
        )
    methods = {
        name.rpartition(".")[0] or None: value
        for name, value in overrides.items()
        if isinstance(name, str) and name.rpartition(".")[2] == "method"
    }
    config = with_methods(config, methods)
    check_keys(config, list(overrides))
    for name, value in overrides.items():
        group, _, leaf = name.rpartition(".")
        section = config
        for level in filter(None, group.split(".")):
            section = section[level]
        # `freeze` checks the type; `ConfigDict` would say it in other words.
        with section.unlocked():
            del section[leaf]
            section[leaf] = value
    return config
