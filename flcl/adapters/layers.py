"""Selects the convolutions with class factors: `all`, a window, a list, or by importance."""

import re
from collections.abc import Sequence

from flcl import files
from flcl.rng import host_generator
from flcl.settings import keys
from flcl.storage import foreign, paths

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def select_layers(spec: str, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the adapted convolutions.

    Args:
      spec: `all`, a window `40-54` (both ends included), a list `0,3,7`, or `top:K@WORKDIR`: the K
        convolutions of highest importance in the finished run at WORKDIR (F12). To compare with
        these: `bottom:K@WORKDIR`, those of lowest importance, and `random:K@N`, K of all
        convolutions, drawn from the number N.
      names: names of all convolutions, in the paper's order.

    Raises:
      ValueError: for an invalid form, an index outside the model, or a run without scores.
    """
    kind = spec.partition(":")[0]
    if kind in ("top", "bottom"):
        count, workdir = _counted(spec, names)
        ranked = _by_importance(spec, workdir, names)
        if len(ranked) < count:
            raise _refused(spec, f"the run at {workdir} scored only {len(ranked)} convolutions")
        taken = ranked[:count] if kind == "top" else ranked[-count:]
        return tuple(sorted(names.index(name) for name in taken))
    if kind == "random":
        count, number = _counted(spec, names)
        drawn = host_generator(int(number), "layers").permutation(len(names))[:count]
        return tuple(sorted(drawn.tolist()))
    # The paper prints its window as a range: layers 40-54.
    chosen = keys.selected(spec, len(names))
    if chosen is None:
        raise _refused(
            spec,
            "accepted are all, 40-54, 0,3,7, top:K@WORKDIR, bottom:K@WORKDIR or random:K@N; this "
            f"model has convolutions 0-{len(names) - 1}",
        )
    return chosen


def _counted(spec: str, names: Sequence[str]) -> tuple[int, str]:
    """K, and what is after the `@`: a workdir, or the digits of N."""
    kind, _, rest = spec.partition(":")
    count, _, place = rest.partition("@")
    counts = _NUMBER.fullmatch(count) and 0 < int(count) <= len(names)
    drawn = kind == "random"
    if not counts or not place or (drawn and not _NUMBER.fullmatch(place)):
        form, needed = ("N", "a whole number N") if drawn else ("WORKDIR", "a finished run")
        raise _refused(spec, f"{kind}:K@{form} needs K in 1-{len(names)} and {needed}")
    return int(count), place


def _by_importance(spec: str, workdir: str, names: Sequence[str]) -> list[str]:
    """The convolutions that a finished run has scored, the most important first."""
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
    return sorted(by_name, key=by_name.get, reverse=True)


def _refused(spec: str, why: str) -> ValueError:
    return ValueError(f"adapter.layers={spec!r}: {why}")
