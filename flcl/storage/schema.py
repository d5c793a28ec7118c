"""Turns JSON into frozen dataclasses and back to the same JSON, and checks every entry.

Annotations that a schema may use: `bool`, `int`, `float`, `str`, `Any`, a `Literal` of words,
another schema, `tuple[X, ...]` for a list, `Mapping[str, X]` for a dictionary, and `X | None`.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from flcl import hints

# Marks in the metadata of a field: see `rest` and `left_out`.
_REST, _LEFT_OUT = {"rest": True}, {"left_out": True}


def left_out(default=None):
    """A field that is written only if its value is not `default`."""
    return dataclasses.field(default=default, metadata=_LEFT_OUT)


def rest():
    """A `Mapping[str, X]` field for all entries of an object that are not fields."""
    return dataclasses.field(default_factory=dict, metadata=_REST)


def to_json(value):
    """A schema as plain lists, dictionaries and values: the inverse of `from_json`."""
    if dataclasses.is_dataclass(value):
        entries = {}
        for field in dataclasses.fields(value):
            entry = getattr(value, field.name)
            if field.metadata == _REST:
                entries |= to_json(entry)
            elif field.metadata != _LEFT_OUT or entry != field.default:
                entries[field.name] = to_json(entry)
        return entries
    if isinstance(value, Mapping):
        return {name: to_json(entry) for name, entry in value.items()}
    return [to_json(entry) for entry in value] if isinstance(value, list | tuple) else value


def from_json(expected, value, file: str, place: str = ""):
    """`value` as the annotated type `expected`.

    file, place: where the value is stored, such as "results.json" and "rows[1].accuracy". Numbers
    are not converted, not even an integer to a float, so `to_json` gives the same bytes.
    `ValueError` names the place of an entry that has a wrong type, is missing or is unknown.
    """
    needed = _words(expected)
    # `X | None` is the only union that a schema may use.
    if isinstance(expected, types.UnionType):
        if value is None:
            return None
        expected = next(kind for kind in typing.get_args(expected) if kind is not types.NoneType)
    if not _has_type(value, expected):
        given = repr(value) if typing.get_origin(expected) is typing.Literal else _described(value)
        raise ValueError(f"{file}: {place or 'the file'} is {given}, {needed} is needed")
    if dataclasses.is_dataclass(expected):
        return _object(expected, value, file, f"{place}." if place else "")
    if typing.get_origin(expected) is tuple:
        kind = typing.get_args(expected)[0]
        entries = enumerate(value)
        return tuple(from_json(kind, entry, file, f"{place}[{i}]") for i, entry in entries)
    if typing.get_origin(expected) is Mapping:
        kind, entries = typing.get_args(expected)[1], value.items()
        return {name: from_json(kind, entry, file, f"{place}.{name}") for name, entry in entries}
    return value


def _object(cls: type, values: Mapping, file: str, prefix: str):
    """A schema from a JSON object, entry by entry."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    collecting = next((field for field in fields.values() if field.metadata == _REST), None)
    if collecting is not None:
        del fields[collecting.name]
    entries, others = {}, {}
    for name, value in values.items():
        if name in fields:
            entries[name] = from_json(fields[name].type, value, file, prefix + name)
        elif collecting is not None:
            kind = typing.get_args(collecting.type)[1]
            # Methods and heads that this version does not know may add entries; they are kept.
            others[name] = from_json(kind, value, file, prefix + name)
        else:
            # An unknown entry is refused and not passed over: it would be lost when the file is
            # written again.
            hint = hints.did_you_mean(name, list(fields))
            raise ValueError(f"{file}: {prefix}{name} is not known.{hint}")
    for name, field in fields.items():
        if name not in entries and _needed(field):
            needed = _words(field.type)
            raise ValueError(f"{file}: {prefix}{name} is missing, {needed} is needed")
    return cls(**entries, **({collecting.name: others} if collecting is not None else {}))


def _needed(field: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _has_type(value, expected) -> bool:
    """Whether a JSON value has the expected outermost type."""
    origin = typing.get_origin(expected)
    if expected is Any:
        return True
    if origin is typing.Literal:
        return value in typing.get_args(expected)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin is Mapping or dataclasses.is_dataclass(expected):
        return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    # In Python `True` is an integer; in JSON it is not a number.
    if expected is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max  # not NaN either
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _words(expected, plural: bool = False) -> str:
    """An annotation in words, such as "a list of numbers"."""
    if isinstance(expected, types.UnionType):
        kinds = [kind for kind in typing.get_args(expected) if kind is not types.NoneType]
        return f"{_words(kinds[0], plural)} or null"
    origin, kinds = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal:
        return " or ".join(map(repr, kinds))
    if origin is tuple:
        return f"{'lists' if plural else 'a list'} of {_words(kinds[0], plural=True)}"
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    name = names.get(expected, "a value" if expected is Any else "an object")
    return f"{name.removeprefix('an ').removeprefix('a ')}s" if plural else name


def _described(value) -> str:
    """The type of a JSON value in words."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return "not a finite number"
    kinds |= {list: "a list", tuple: "a list", dict: "an object"}
    return kinds.get(type(value), f"a {type(value).__name__}")
