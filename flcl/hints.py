"""Suggestions for a name that does not exist, and values in the text of an error."""

import difflib
import re


def did_you_mean(name: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or an empty string when no known name is similar to `name`."""
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {near!r}?"


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that `name` misspells or abbreviates; None if there is none.

    Names may have groups: `train.lr`, `train.rate` and `lr` find `train.learning_rate`.
    """
    group, dot, leaf = name.rpartition(".")
    inside = [key for key in known if key.rpartition(".")[0] == group and dot]
    # Inside the group that was named, only the last part counts: a long group would make all of
    # its keys look alike.
    if near := _near(leaf, inside):
        return near
    if not inside and (similar := difflib.get_close_matches(name, known, n=1, cutoff=0.7)):
        return similar[0]
    return _near(leaf, known)  # the group may be wrong or missing


def quoted(value) -> str:
    """`repr` of a value on one line, for an error."""
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python does not write all digits
        return f"a number of {value.bit_length()} bits"
    try:
        return brief(repr(value), most=100)
    except Exception:  # the code of a stranger's class
        return f"a {type(value).__name__}"


def text_of(error: BaseException) -> str:
    """The text of an exception; empty if its own code raises another one."""
    try:
        return str(error)
    except Exception:
        return ""


def brief(text: str, most: int = 200) -> str:
    """`text` on one line; a word of more than `most` characters is cut, and a very long line."""
    line = " ".join(text.split())
    line = re.sub(rf"\S{{{most},}}", lambda word: f"{word[0][:60]}...{word[0][-20:]}", line)
    return line if len(line) <= 5 * most else f"{line[: 3 * most]} ... {line[-most:]}"


def shortened(names: str, most: int = 100) -> str:
    """A list of names, cut after `most` characters at a comma."""
    if len(names) <= most:
        return names
    return f"{names[:most].rpartition(', ')[0] or names[:most]}, ..."


def _near(leaf: str, known: list[str]) -> str | None:
    """The first of `known` whose last part is misspelt or abbreviated as `leaf`."""
    keys = {key.rpartition(".")[2]: key for key in reversed(known)}
    if similar := difflib.get_close_matches(leaf, keys, n=1, cutoff=0.7):
        return keys[similar[0]]
    for abbreviates in (_initials, _words):
        if full := [key for key in keys if abbreviates(leaf, key)]:
            return keys[min(full, key=len)]
    return None


def _initials(leaf: str, key: str) -> bool:
    return len(leaf) > 1 and leaf == "".join(word[:1] for word in key.split("_"))


def _words(leaf: str, key: str) -> bool:
    """Whether each word of `leaf`, at least three letters, begins a word of `key`."""
    words, whole = leaf.split("_"), key.split("_")
    return all(len(w) > 2 and any(each.startswith(w) for each in whole) for w in words)
