"""Selects the convolutions with class factors: `all`, a window, a list, or the most important."""

import json
from collections.abc import Sequence
from pathlib import Path


def select_layers(spec: str, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the adapted convolutions.

    Args:
      spec: `all`, a window `40-54` (both ends included), a list `0,3,7`, or `top:K@WORKDIR`: the K
        convolutions of highest importance in the finished run at WORKDIR (F12).
      names: names of all convolutions, in the paper's order.

    Raises:
      ValueError: for an invalid form, an index outside the model, or a run without scores.
    """
    if spec == "all":
        return tuple(range(len(names)))
    if spec.startswith("top:"):
        return _most_important(spec, names)
    try:
        if "-" in spec:
            # The paper prints its window in this form: layers 40-54.
            first, last = (int(part) for part in spec.split("-"))
            chosen = tuple(range(first, last + 1))
        else:
            chosen = tuple(sorted({int(part) for part in spec.split(",")}))
    except ValueError:
        raise _refused(spec, "accepted are all, 40-54, 0,3,7 or top:K@WORKDIR") from None
    if not chosen or chosen[0] < 0 or chosen[-1] >= len(names):
        raise _refused(spec, f"this model has convolutions 0-{len(names) - 1}")
    return chosen


def _most_important(spec: str, names: Sequence[str]) -> tuple[int, ...]:
    count, _, workdir = spec.removeprefix("top:").partition("@")
    if not count.isdigit() or not 0 < int(count) <= len(names) or not workdir:
        raise _refused(spec, f"top:K@WORKDIR needs K in 1-{len(names)} and a finished run")
    path = Path(workdir) / "results.json"
    try:
        # Read as plain JSON, because `adapters` must not import the schema from `runs`.
        scores = json.loads(path.read_text())["importance"]
    except (OSError, ValueError, KeyError):
        raise _refused(spec, f"{path} holds no importance scores; finish a run there") from None
    by_name = {entry["name"]: entry["score"] for entry in scores}
    # That run may have adapted fewer layers, but a name outside this model means another network.
    if not set(by_name) <= set(names):
        raise _refused(spec, f"the run at {workdir} has another model")
    ranked = sorted(by_name, key=by_name.get, reverse=True)
    if len(ranked) < int(count):
        raise _refused(spec, f"the run at {workdir} scored only {len(ranked)} convolutions")
    return tuple(sorted(names.index(name) for name in ranked[: int(count)]))


def _refused(spec: str, why: str) -> ValueError:
    return ValueError(f"adapter.layers={spec!r}: {why}")
