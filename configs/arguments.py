"""The words after the colon of `--config=FILE:ARG`."""

from collections.abc import Mapping, Sequence

from flcl.settings.config_file import ArgumentError


def words(arg: str, flags: Sequence[str], accepted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Parses `smoke,baseline=joint` to {"smoke": "", "baseline": "joint"}; no word is required.

    flags: the words without a value. accepted: for each word with a value, the values that are
    accepted. Raises `ArgumentError` for an unknown or repeated word and for an unknown value.
    """
    found = {}
    for word in filter(None, (part.strip() for part in (arg or "").split(","))):
        name, _, value = word.partition("=")
        if word not in flags and value not in accepted.get(name, ()):
            choices = [*flags, *(f"{name}={'|'.join(values)}" for name, values in accepted.items())]
            raise ArgumentError(
                f"config argument {word!r}: accepted, joined by commas, are {'; '.join(choices)}"
            )
        if name in found:
            raise ArgumentError(f"config argument {name!r} is given twice")
        found[name] = value
    return found
