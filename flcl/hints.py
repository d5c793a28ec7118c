"""Suggestions for a name that does not exist."""

import difflib


def did_you_mean(name: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or an empty string when no known name is similar to `name`."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not near:  # the group may be wrong or missing: compare last parts only
        leaves = {key.rpartition(".")[2]: key for key in reversed(known)}
        leaf = name.rpartition(".")[2]
        near = [leaves[k] for k in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return f" Did you mean {near[0]!r}?" if near else ""
