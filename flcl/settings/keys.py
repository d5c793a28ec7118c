"""How a key is declared: its default, its type, the values it accepts and its comment."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

# Steps and sizes are counted in int32 on a device; other numbers are used in float32 there.
INT_MOST = 2**31 - 1
FLOAT_LEAST, FLOAT_MOST = 1.2e-38, 3.4e38


class Range(NamedTuple):
    """The values that a key accepts.

    Attributes:
      words: the text after "must be" in an error, such as `at least 1`.
      holds: whether a value of the right type is accepted; NaN is never accepted.
      bounded: whether `holds` refuses too large values itself; otherwise the type does.
    """

    words: str
    holds: Callable[[Any], bool]
    bounded: bool = False

    def needed(self, value) -> str | None:
        """The text after "must be" for a value that is refused; None for an accepted one."""
        if not self.holds(value):
            return self.words
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and 0 < abs(number) < FLOAT_LEAST:
                return f"{self.words}, and not between 0 and {FLOAT_LEAST} (float32)"
            most = FLOAT_MOST if isinstance(number, float) else INT_MOST
            if not self.bounded and number > most:
                return f"{self.words}, and at most {most}"
        return None


def at_least(least: float, most: float | None = None) -> Range:
    """`least` and everything above, up to `most`; None = the largest value of the type."""
    if most is not None:
        return Range(f"{least} to {most}", lambda v: least <= v <= most, True)
    return Range(f"at least {least}" if least else "0 or more", lambda v: v >= least)


def above(bound: float) -> Range:
    """Everything above `bound`."""
    return Range(f"above {bound}", lambda v: v > bound)


def between(low: float, high: float) -> Range:
    """Above `low` and below `high`."""
    return Range(f"above {low} and below {high}", lambda v: low < v < high, True)


def from_to(low: float, high: float) -> Range:
    """`low`, `high` and everything between them."""
    return Range(f"from {low} to {high}", lambda v: low <= v <= high)


def from_to_below(low: float, high: float, words: str = "") -> Range:
    """`low` or more, but below `high`."""
    return Range(words or f"at least {low} and below {high}", lambda v: low <= v < high, True)


def above_up_to(low: float, high: float) -> Range:
    """Above `low`, and at most `high`."""
    return Range(f"above {low} and at most {high}", lambda v: low < v <= high, True)


def every(entry: Range, *, empty: bool = False, most: int = 32) -> Range:
    """At most `most` values that `entry` accepts; with `empty`, () is accepted too."""
    words = f"{'() or' if empty else 'one or more'} values, each {entry.words}"

    def holds(values) -> bool:
        return (empty or len(values) > 0) and all(map(entry.holds, values))

    return Range(words, lambda v: holds(v) and len(v) <= most, entry.bounded)


def selected(text: str, count: int) -> tuple[int, ...] | None:
    """The numbers that `all`, a window `4-7` or a list `0,3,7` selects of 0 to `count` - 1.

    They ascend. None: `text` has another form, names a number twice or one outside.
    """
    if text == "all":
        return tuple(range(count))
    # Nine digits: a window is compared with `count` before anything of its length is made.
    if window := re.fullmatch(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*", text, re.ASCII):
        first, last = int(window[1]), int(window[2])
        return tuple(range(first, last + 1)) if first <= last < count else None
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text, re.ASCII):
        return None
    numbers = sorted(map(int, text.split(",")))
    inside = numbers[-1] < count and len({*numbers}) == len(numbers)
    return tuple(numbers) if inside else None


def key(default, comment: str, accepts: Range | None = None, *, free: bool = False):
    """A config key.

    Args:
      default: the value if nobody changes it.
      comment: one line for `flcl train --help`.
      accepts: the accepted values; None = all values of the type, unless a `check` refuses them.
      free: the key changes no result, so a run may continue with another value.
    """
    metadata = {"comment": comment, "range": accepts, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type):
    """A nested group of keys, built from the defaults of `cls`."""
    return dataclasses.field(default_factory=cls)
