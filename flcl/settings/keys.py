"""How a key is declared: its default, its type, the values it accepts and its comment."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The values that a key accepts.

    Attributes:
      words: the text after "must be" in an error, such as `at least 1`.
      holds: whether a value of the right type is accepted; NaN is never accepted.
    """

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Range:
    """`least` and everything above."""
    return Range(f"at least {least}" if least else "0 or more", lambda v: v >= least)


def above(bound: float) -> Range:
    """Everything above `bound`."""
    return Range(f"above {bound}", lambda v: v > bound)


def between(low: float, high: float) -> Range:
    """Above `low` and below `high`."""
    return Range(f"above {low} and below {high}", lambda v: low < v < high)


def from_to(low: float, high: float) -> Range:
    """`low`, `high` and everything between them."""
    return Range(f"from {low} to {high}", lambda v: low <= v <= high)


def from_to_below(low: float, high: float, words: str = "") -> Range:
    """`low` or more, but below `high`."""
    return Range(words or f"at least {low} and below {high}", lambda v: low <= v < high)


def above_up_to(low: float, high: float) -> Range:
    """Above `low`, and at most `high`."""
    return Range(f"above {low} and at most {high}", lambda v: low < v <= high)


def every(entry: Range, *, empty: bool = False) -> Range:
    """A tuple whose values are all accepted by `entry`; with `empty`, () is accepted too."""
    words = f"{'() or' if empty else 'one or more'} values, each {entry.words}"
    return Range(words, lambda v: (empty or len(v) > 0) and all(map(entry.holds, v)))


def key(default, comment: str, accepts: Range | None = None, *, free: bool = False):
    """A config key.

    Args:
      default: the value if nobody changes it.
      comment: one line for `launch/train.py --help`.
      accepts: the accepted values; None = all values of the type, unless a `check` refuses them.
      free: the key changes no result, so a run may continue with another value.
    """
    metadata = {"comment": comment, "range": accepts, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type):
    """A nested group of keys, built from the defaults of `cls`."""
    return dataclasses.field(default_factory=cls)
