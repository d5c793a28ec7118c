"""Selects the convolutions with class factors: `all`, a window, a list, or the most important."""

import re
from collections.abc import Sequence

from flcl import files
from flcl.settings import keys
from flcl.storage import foreign, paths


def select_layers(spec: str, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the adapted convolutions.

    Args:
      spec: `all`, a window `40-54` (both ends included), a list `0,3,7`, or `top:K@WORKDIR`: the K
        convolutions of highest importance in the finished run at WORKDIR (F12).
      names: names of all convolutions, in the paper's order.

    Raises:
      ValueError: for an invalid form, an index outside the model, or a run without scores.
    """
    if spec.startswith("top:"):
        return _most_important(spec, names)
    # The paper prints its window as a range: layers 40-54.
    chosen = keys.selected(spec, len(names))
    if chosen is None:
        raise _refused(
            spec,
            "accepted are all, 40-54, 0,3,7 or top:K@WORKDIR; this model has convolutions "
            f"0-{len(names) - 1}",
        )
    return chosen


def _most_important(spec: str, names: Sequence[str]) -> tuple[int, ...]:
    count, _, workdir = spec.removeprefix("top:").partition("@")
    known = re.fullmatch(r"\d{1,9}", count, re.ASCII) and 0 < int(count) <= len(names)
    if not known or not workdir:
        raise _refused(spec, f"top:K@WORKDIR needs K in 1-{len(names)} and a finished run")
    folder = paths.local(workdir, "adapter.layers")
    path = folder / "results.json"
    foreign.check_folder(folder)
    try:
        # Read as plain JSON, because `adapters` must not import the schema from `runs`.
        scores = files.read_json(path)["importance"]
        by_name = {str(entry["name"]): float(entry["score"]) for entry in scores}
    except (ValueError, LookupError, TypeError, OverflowError):
        raise _refused(spec, f"{path} holds no importance scores; finish a run there") from None
    # That run may have adapted fewer layers, but a name outside this model means another network.
    if not set(by_name) <= set(names):
        raise _refused(spec, f"the run at {workdir} has another model")
    ranked = sorted(by_name, key=by_name.get, reverse=True)
    if len(ranked) < int(count):
        raise _refused(spec, f"the run at {workdir} scored only {len(ranked)} convolutions")
    return tuple(sorted(names.index(name) for name in ranked[: int(count)]))


def _refused(spec: str, why: str) -> ValueError:
    return ValueError(f"adapter.layers={spec!r}: {why}")
