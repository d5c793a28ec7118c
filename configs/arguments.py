"""The words after the colon of `--config=FILE:ARG`."""

import re
from collections.abc import Mapping, Sequence

from flcl.settings.config_file import ArgumentError

_NUMBER = re.compile(r"\d{1,5}(\.\d{1,3})?", re.ASCII)


def words(
    arg: str,
    flags: Sequence[str],
    accepted: Mapping[str, Sequence[str]],
    numbers: Sequence[str] = (),
) -> dict[str, str]:
    """Parses `smoke,baseline=joint` to {"smoke": "", "baseline": "joint"}; no word is required.

    flags: the words without a value. accepted: for each word with a value, the values that are
    accepted. numbers: the words whose value is a number above 0, such as `minutes=10`. Raises
    `ArgumentError` for an unknown or repeated word and for an unknown value.
    """
    found = {}
    for word in filter(None, (part.strip() for part in (arg or "").split(","))):
        name, _, value = word.partition("=")
        counted = name in numbers and _NUMBER.fullmatch(value) and float(value) > 0
        if word not in flags and value not in accepted.get(name, ()) and not counted:
            choices = [*flags, *(f"{name}={'|'.join(values)}" for name, values in accepted.items())]
            choices += [f"{name}=N" for name in numbers]
            raise ArgumentError(
                f"config argument {word!r}: accepted, joined by commas, are {'; '.join(choices)}"
            )
        if name in found:
            raise ArgumentError(f"config argument {name!r} is given twice")
        found[name] = value
    return found
