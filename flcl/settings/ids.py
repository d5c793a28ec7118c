"""Classes and domains that a user names: a number is an id, and a name is a name."""

import csv
import numbers
import re
from collections.abc import Iterable, Sequence

from flcl import hints


def resolve(entry: int | str, names: Sequence[str], what: str) -> int:
    """The id of a class or domain that a user names; an id is a position in `names`.

    An integer is an id and `id:2` is one too; `name:2` is the one called "2". Another text is a
    name or, in digits, an id. what: "class" or "domain". Raises `ValueError` for one that does not
    exist, and for digits that are the id of one and the name of another.
    """
    text = str(entry)
    readings = {}
    # bool is an integer in Python, and NumPy has integers of its own.
    if isinstance(entry, str | numbers.Integral) and not isinstance(entry, bool):
        number = re.fullmatch(r"(?:id:)?(\d{1,9})", text, re.ASCII)
        if number and int(number[1]) < len(names):
            readings["id"] = int(number[1])
        for name in (text, text.removeprefix("name:")):
            if isinstance(entry, str) and name in names:
                readings["name"] = names.index(name)
    if len(set(readings.values())) > 1:
        raise ValueError(
            f"{what} {text!r}: is the id of {names[readings['id']]!r} and the name of the {what} "
            f"with id {readings['name']}; write id:{readings['id']} or name:{text}"
        )
    if not readings:
        raise ValueError(
            f"{what} {hints.quoted(entry)} is not in this run: accepted are 0-{len(names) - 1} or "
            f"a name.{hints.did_you_mean(text, list(names))}"
        )
    return min(readings.values())


def listed(argument: str, entries, names: Sequence[str], *, default: str = "") -> list[int]:
    """The ids of the classes that a user lists; an id is a position in `names`.

    They keep their order, and one that comes twice stays twice.

    Args:
      argument: the name of what the user has given, for messages.
      entries: an id or a name as in `resolve`, several of them in a text such as "3,5", or any
        number of these in a list or an array of NumPy or JAX.
      names: the names of all classes.
      default: what None would mean instead, for messages; empty = nothing.

    Raises `ValueError` for what is no list, for an empty one and for a class that does not exist.
    """
    given = entries.tolist() if hasattr(entries, "dtype") else entries
    if isinstance(given, str | numbers.Integral):
        given = [given]
    shown = f"{argument}={hints.quoted(entries)}"
    if not isinstance(given, Iterable):
        raise ValueError(f"{shown}: a list of ids or names is needed, such as [3, 5]")
    words = [word for entry in given for word in _words(entry, names)]
    if not words:
        raise ValueError(
            f"{shown}: at least one is needed" + (f"; None = {default}" if default else "")
        )
    return [resolve(word, names, "class") for word in words]


def _words(entry, names: Sequence[str]) -> list:
    """The ids and names in an entry of a list; a name may have a comma."""
    if not isinstance(entry, str) or entry in names or entry.removeprefix("name:") in names:
        return [entry]
    return separated(entry)


def separated(text: str) -> list[str]:
    """The words of a list as on a command line: `3,5`; a word with a comma is in double quotes."""
    # The reader would end a word at the end of a line, and no word has one.
    lines = [" ".join(text.splitlines())]
    words = next(csv.reader(lines, skipinitialspace=True), [])
    return [word.strip() for word in words]
