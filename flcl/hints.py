"""Suggestions for a name that does not exist, and values in the text of an error."""

import difflib
import re


def did_you_mean(name: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or an empty string when no known name is similar to `name`.

    Names may have groups, such as `train.learning_rate`. An abbreviation finds its name: `lr`,
    `train.lr` and `train.rate` find `train.learning_rate`.
    """
    group, dot, leaf = name.rpartition(".")
    inside = {key.rpartition(".")[2]: key for key in reversed(known) if key.startswith(group + dot)}
    # Inside the group that was named, only the last part counts: a long group would make all of
    # its keys look alike.
    near = _near(leaf, {k: v for k, v in inside.items() if v == group + dot + k})
    near = near or (difflib.get_close_matches(name, known, n=1, cutoff=0.7) if not inside else [])
    # The group may be wrong or missing.
    near = near or _near(leaf, {key.rpartition(".")[2]: key for key in reversed(known)})
    return f" Did you mean {near[0]!r}?" if near else ""


def shown(value) -> str:
    """`repr` of a value on one line, for an error."""
    try:
        return brief(repr(value))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else "..."


def brief(text: str, most: int = 200) -> str:
    """`text` on one line, in which every word of more than `most` characters is cut."""
    words = " ".join(text.split())
    return re.sub(rf"\S{{{most},}}", lambda word: f"{word[0][:60]}...{word[0][-20:]}", words)


def _near(leaf: str, keys: dict[str, str]) -> list[str]:
    """The values in `keys` of the one name that `leaf` misspells or abbreviates, if any."""
    similar = difflib.get_close_matches(leaf, keys, n=1, cutoff=0.7)
    if similar:
        return [keys[similar[0]]]
    for abbreviates in (_initials, _words):
        if full := [key for key in keys if abbreviates(leaf, key)]:
            return [keys[min(full, key=len)]]
    return []


def _initials(leaf: str, key: str) -> bool:
    return len(leaf) > 1 and leaf == "".join(word[:1] for word in key.split("_"))


def _words(leaf: str, key: str) -> bool:
    """Whether each word of `leaf`, at least three letters, begins a word of `key`."""
    words, whole = leaf.split("_"), key.split("_")
    return all(len(w) > 2 and any(each.startswith(w) for each in whole) for w in words)
