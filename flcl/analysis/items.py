"""Every analysis by name, what it takes, and which runs have it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flcl import files, hints
from flcl.analysis import factors, sampling, updates
from flcl.analysis.frame import Analysis
from flcl.runs.opened.inside import without_factors
from flcl.runs.opened.run import Run

FOLDER = "analysis"
"""The folder in the workdir of a run where its analyses are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What analyses may be asked for beside their names.

    seeds: of noise and judges; None = the seed of the run. factors: samples of a class relative to
    those of the run. solvers, budgets, grids: of the function evaluations. top: K of
    `adapter.layers=top:K`; 0 = see `factors.importance`. tell: called with a line before each row
    that takes long.
    """

    seeds: tuple[int, ...] = ()
    factors: tuple[float, ...] = sampling.FACTORS
    solvers: tuple[str, ...] = sampling.SOLVERS
    budgets: tuple[int, ...] = sampling.BUDGETS
    grids: tuple[str, ...] = sampling.GRIDS
    top: int = 0
    tell: sampling.Tell = lambda line: None


@dataclasses.dataclass(frozen=True)
class Item:
    """An analysis: how it is made, why a run cannot have it, and whether it takes minutes."""

    make: Callable[[Run, Path, Options], Analysis]
    lacks: Callable[[Run], str] = lambda run: ""
    slow: bool = False


def _lacks_alphas(run: Run) -> str:
    return without_factors(run) or factors.without_alphas(run)


def _seeds(run: Run, options: Options) -> tuple[int, ...]:
    return options.seeds or (run.settings.seed,)


ITEMS: Mapping[str, Mapping[str, Item]] = {
    "generator": {
        "ranks": Item(lambda run, *_: factors.ranks(run), without_factors),
        "alphas": Item(lambda run, *_: factors.alphas(run), _lacks_alphas),
        "importance": Item(lambda run, _, o: factors.importance(run, o.top), without_factors),
        "parameters": Item(lambda run, *_: factors.parameters(run), without_factors),
        "training_ranks": Item(
            lambda run, *_: factors.training_ranks(run), factors.without_training_ranks
        ),
        "oversampling": Item(
            lambda run, folder, o: sampling.oversampling(
                run, folder, o.factors, _seeds(run, o), o.tell
            ),
            slow=True,
        ),
        "evaluations": Item(
            lambda run, folder, o: sampling.evaluations(
                run, folder, o.solvers, o.budgets, o.grids, _seeds(run, o), o.tell
            ),
            slow=True,
        ),
    },
    "classifier": {
        "ranks": Item(lambda run, *_: updates.ranks(run), updates.without_updates),
        "drift": Item(lambda run, *_: updates.drift(run), updates.without_drift),
        "prompt": Item(lambda run, *_: updates.prompt(run), updates.without_prompt),
    },
}
NAMES = tuple(dict.fromkeys(name for items in ITEMS.values() for name in items))


def analyse(
    run: Run, only: Sequence[str] = (), out: Path | None = None, options: Options | None = None
) -> Iterator[tuple[str, Analysis]]:
    """Makes and writes analyses of a run; gives the name and the numbers of each when it is there.

    Writes NAME.csv and, if there is a picture, NAME.png. No file of the run itself is touched.

    Args:
      only: their names; () = all that this run has and that take seconds.
      out: the folder to write; None = `analysis` in the workdir.

    Raises:
      ValueError: in one line, before anything is made, for a name that no run has, for an analysis
        that this run cannot have, and for values that no sampler accepts.
    """
    options, folder = options or Options(), out or run.workdir / FOLDER
    sampling.check(options.solvers, options.budgets, options.grids, options.factors)
    names = _chosen(run, only)
    return _made(run, names, folder, options)


def _made(run: Run, names: Sequence[str], folder: Path, options: Options) -> Iterator:
    for name in names:
        analysis = ITEMS[run.kind][name].make(run, folder, options)
        # The picture last: where it is, its numbers are, too.
        files.write(folder / f"{name}.csv", analysis.data.csv())
        if analysis.draw:
            analysis.draw(folder / f"{name}.png")
        yield name, analysis


def _chosen(run: Run, only: Sequence[str]) -> list[str]:
    items = ITEMS[run.kind]
    for name in only:
        if name not in NAMES:
            near = hints.did_you_mean(name, list(NAMES))
            raise ValueError(f"--only={hints.quoted(name)}: accepted are {', '.join(NAMES)}.{near}")
        if name not in items:
            raise ValueError(
                f"--only={name}: {run.workdir} is the run of a {run.kind}, which has "
                f"{', '.join(items)}"
            )
        if missing := items[name].lacks(run):
            raise ValueError(f"--only={name}: {run.workdir}: {missing}")
    if only:
        return list(dict.fromkeys(only))
    missing = {name: item.lacks(run) for name, item in items.items() if not item.slow}
    if not (able := [name for name, why in missing.items() if not why]):
        slow = [name for name, item in items.items() if item.slow]
        advice = f"; --only={','.join(slow)} needs none" if slow else ""
        raise ValueError(f"{run.workdir}: {next(iter(missing.values()))}{advice}")
    return able
