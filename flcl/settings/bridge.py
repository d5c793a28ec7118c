"""Turns a `ConfigDict` into frozen settings: the only place where the keys are checked."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator

import ml_collections
from ml_collections import config_dict

from flcl import hints, settings


def defaults(method: str) -> ml_collections.ConfigDict:
    """Every key of `method` with its default; a config file can edit the result."""
    return _to_config_dict(run_class(method)(method=method))


def to_config(run: settings.Run) -> ml_collections.ConfigDict:
    """The settings as an editable config: the inverse of `freeze`."""
    return _to_config_dict(run)


def switch(config: ml_collections.ConfigDict, method: str) -> ml_collections.ConfigDict:
    """`config` for another method: shared keys keep their values, all others have defaults."""
    switched = defaults(method)
    before = run_class(config.method)
    for kind in (settings.GeneratorRun, settings.ClassifierRun):
        if issubclass(before, kind) and not issubclass(run_class(method), kind):
            same = [name for name, cls in settings.RUNS.items() if issubclass(cls, kind)]
            raise ValueError(
                f"method={method!r}: cannot be taken over from {config.method!r}, choose one of "
                f"{', '.join(same)}"
            )
    # What the config file has changed stays changed, where the other method has the same key.
    shared = {name for name, _ in keys(run_class(method))} - {"method"}
    usual = dict(_leaves(defaults(config.method)))
    kept = {n: value for n, value in _leaves(config) if n in shared and value != usual[n]}
    switched.update_from_flattened_dict(kept)
    return switched


def switched(
    config: ml_collections.ConfigDict, part: str | None, method: str
) -> ml_collections.ConfigDict:
    """`config` with another method; part: of this one of its two runs, None = it is one run."""
    if part is None and "method" in config:
        return switch(config, method)
    if part in settings.PARTS and part in config:
        config[part] = switch(config[part], method)
    return config


def check_form(config: ml_collections.ConfigDict) -> None:
    """Raises `ValueError` unless a config has exactly the keys of its method, each of its type.

    What has another form cannot be edited. None may stand for a value that is still to be given.
    """
    cls = class_of(config)
    _check_known(config, cls)
    for name, field in keys(cls):
        entry = _entry(config, name)
        if entry is not None:
            _checked(name, entry, field.type)


def with_places(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config`, in which the command line can give a value to every key that is None."""
    for name, field in keys(class_of(config)):
        group, _, leaf = name.rpartition(".")
        section = _entry(config, group) if group else config
        if section[leaf] is None:
            # Deleted first: the file may have given it a place of a wrong type.
            with config.unlocked():
                del section[leaf]
                section[leaf] = _place(field.type)
    return config


def errors(config: ml_collections.ConfigDict) -> list[str]:
    """What `freeze` says about a config that passes `check_form`, for each key that it refuses."""
    refused = []
    for name, field in keys(class_of(config)):
        try:
            _in_range(name, _checked(name, _entry(config, name), field.type), field)
        except ValueError as error:
            refused.append(hints.brief(str(error)))
    if not refused:
        try:
            freeze(config)
        except ValueError as error:  # keys that do not fit each other
            refused.append(str(error))
    return refused


def freeze(config: ml_collections.ConfigDict) -> settings.Run | settings.Combined:
    """Settings of a run from its edited config; of two runs if it has a generator and a classifier.

    Raises `ValueError` for an unknown method, for a key that the method does not read (with the
    nearest known key), for a missing key, for a value of a wrong type or outside its range, and
    for values that do not fit each other (`check` of the settings class). All on one line, in which
    a long value is cut.
    """
    try:
        return _frozen(config)
    except (ValueError, config_dict.RequiredValueError) as error:
        raise ValueError(hints.brief(str(error))) from None


def _frozen(config: ml_collections.ConfigDict) -> settings.Run | settings.Combined:
    cls = class_of(config)
    _check_known(config, cls)
    run = _build(cls, config, "")
    # Only now, because these checks compare keys that are each valid.
    run.check()
    return run


def _check_known(config: ml_collections.ConfigDict, cls: type) -> None:
    """Raises `ValueError` for an unknown key.

    This check comes first: a misspelt key must not leave the default in use without a word.
    """
    known = [name for name, _ in keys(cls)]
    for name, _ in _leaves(config):
        if name not in known:
            raise unread(name, known, config.get("method", "combined"))


def keys(cls: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """All `(dotted name, field)` pairs of a settings class and its sections, in order."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from keys(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def class_of(config: ml_collections.ConfigDict) -> type:
    """The settings class of a config; raises `ValueError` for an unknown method.

    A config of two runs has the groups `generator` and `classifier`, and nothing beside them.
    """
    parts = [config.get(name) for name in settings.PARTS]
    if len(config) != len(parts) or not all(isinstance(p, config_dict.ConfigDict) for p in parts):
        return run_class(config.get("method"))
    methods = [each.get("method") for each in parts]
    return _combined(*map(run_class, methods))


@functools.cache
def _combined(*classes: type[settings.Run]) -> type[settings.Combined]:
    fields = zip(settings.PARTS, classes, strict=True)
    return dataclasses.make_dataclass(
        "Combined", fields, bases=(settings.Combined,), frozen=True, kw_only=True
    )


def run_class(method: str) -> type[settings.Run]:
    """The settings class of a method; raises `ValueError` for an unknown one."""
    # A list or a group in its place has no hash.
    if not isinstance(method, str) or method not in settings.RUNS:
        raise ValueError(f"method={hints.quoted(method)}: accepted are {', '.join(settings.RUNS)}")
    return settings.RUNS[method]


def value(run: settings.Run, name: str):
    """The value of a dotted key."""
    for attribute in name.split("."):
        run = getattr(run, attribute)
    return run


def as_dict(run: settings.Run) -> dict:
    """The settings as nested plain values for JSON (tuples become lists)."""
    return {
        name: as_dict(value)
        if dataclasses.is_dataclass(value)
        else (list(value) if isinstance(value, tuple) else value)
        for name, value in ((f.name, getattr(run, f.name)) for f in dataclasses.fields(run))
    }


def from_dict(values: dict) -> settings.Run:
    """Inverse of `as_dict`."""
    # The same checks as for a config file: somebody may have edited the stored file.
    try:
        config = ml_collections.ConfigDict(values, convert_dict=True)
    except (KeyError, TypeError, AttributeError) as error:  # a name that `ConfigDict` itself uses
        raise ValueError(f"not the keys of a run: {hints.brief(str(error))}") from None
    return freeze(config)


def explained(field: dataclasses.Field) -> str:
    """The comment of a key, and its range if it has one."""
    comment, accepts = field.metadata["comment"], field.metadata["range"]
    return comment if accepts is None else f"{comment} [{accepts.words}]"


def unread(name: str, known: list[str], method: str) -> ValueError:
    """The error for a key that `method` does not read."""
    # Three different mistakes: a group, a key of another method, a misspelt key.
    inside = [key for key in known if key.startswith(f"{name}.")]
    if inside:
        return ValueError(f"config key {name!r} is a group of keys, such as {inside[0]!r}")
    for part in settings.PARTS:
        if f"{part}.{name}" in known:
            return ValueError(f"config key {name!r}: this config has two runs; write {part}.{name}")
    # A key of another method is a different mistake than a misspelt key, and needs another
    # advice.
    others = [other for other, cls in settings.RUNS.items() if name in dict(keys(cls))]
    hint = f" It belongs to method {others[0]!r}." if others else hints.did_you_mean(name, known)
    return ValueError(f"config key {name!r} is read by no part of method {method!r}.{hint}")


def accepted(expected) -> str:
    """The values that a key of this annotated type accepts, in words."""
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        # None means that a value is not set, which cannot be written on the command line.
        named = [str(each) for each in typing.get_args(expected) if each is not None]
        return f"accepted are {', '.join(named)}"
    if origin is tuple:
        item = typing.get_args(expected)[0]
        return f"a tuple of {item.__name__} is needed, such as {'q,v' if item is str else '1,2'}"
    return f"{expected.__name__} is needed"


def _to_config_dict(value) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    for field in dataclasses.fields(value):
        entry = getattr(value, field.name)
        if dataclasses.is_dataclass(entry):
            entry = _to_config_dict(entry)
        # A placeholder is None with a type; without it the command line knows no parser.
        config[field.name] = _place(field.type) if entry is None else entry
    return config


def _place(expected) -> config_dict.FieldReference:
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        values = [each for each in typing.get_args(expected) if each is not None]
        return config_dict.placeholder(type(values[0]))
    return config_dict.placeholder(origin or expected)


def _leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in config.items():
        # An empty group counts as a key, so it is refused like any unknown key.
        if isinstance(value, config_dict.ConfigDict) and len(value):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _entry(config: ml_collections.ConfigDict, name: str):
    """The value of a dotted key; `ValueError` if it is missing."""
    entry = config
    for level in name.split("."):
        if level not in entry:
            raise ValueError(f"config key {name!r} is missing")
        entry = entry[level]
    return entry


def _build(cls: type, config: ml_collections.ConfigDict, prefix: str):
    values = {}
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        if field.name not in config:
            raise ValueError(f"config key {name!r} is missing")
        entry = config[field.name]
        if dataclasses.is_dataclass(field.type):
            values[field.name] = _build(field.type, entry, f"{name}.")
        else:
            values[field.name] = _in_range(name, _checked(name, entry, field.type), field)
    return cls(**values)


def _in_range(name: str, entry, field: dataclasses.Field):
    accepts = field.metadata["range"]
    needed = accepts and accepts.needed(entry)
    if needed:
        raise ValueError(f"{name}={hints.quoted(entry)}: must be {needed}")
    return entry


def _checked(name: str, entry, expected):
    """`entry` as the annotated type; `ValueError` names the key and what it accepts."""
    refused = ValueError(f"{name}={hints.quoted(entry)}: {accepted(expected)}")
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        # The type must be equal too, because `True == 1`.
        if not any(
            entry == each and type(entry) is type(each) for each in typing.get_args(expected)
        ):
            raise refused
        return entry
    if origin is tuple:
        item = typing.get_args(expected)[0]
        if not isinstance(entry, list | tuple) or any(type(each) is not item for each in entry):
            raise refused
        return tuple(_words(entry) if item is str else entry)
    assert not isinstance(expected, types.UnionType), f"{name}: optional keys are not supported"
    # `1` for a float is no mistake; `1.0` for an integer is refused below.
    if expected is float and type(entry) is int:
        try:
            return float(entry)
        except OverflowError:
            raise refused from None
    if type(entry) is not expected:
        raise refused
    if expected is str and not _is_utf8(entry):
        raise ValueError(
            f"{name}={hints.quoted(entry)}: not UTF-8, or the locale is not: set LC_ALL=C.UTF-8"
        )
    return entry


def _words(entries: list[str] | tuple[str, ...]) -> list[str]:
    """The words of a tuple; on the command line `q,v` and `(q,v)` arrive as one string."""
    text = ",".join(entries).strip()
    for first, last in ("()", "[]"):
        if text.startswith(first) and text.endswith(last):
            text = text[1:-1].strip().removesuffix(",")
    return [word.strip().strip("'\"") for word in text.split(",")] if text else []


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8 arrive as surrogates
        return False
    return True
