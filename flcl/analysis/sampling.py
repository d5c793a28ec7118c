"""What samples of a finished run show: more of them, and fewer evaluations for each of them."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flcl import hints
from flcl.analysis import drawing
from flcl.analysis.frame import Analysis, Frame, mean_and_deviation
from flcl.analysis.rows import KeptRows
from flcl.flow.sampler import CALLS_OF_STEP, SOLVERS
from flcl.runs.opened.again import NewestAgain
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.settings.generator import grids as times

Tell = Callable[[str], None]

FACTORS = (1, 2, 5, 10)
"""Samples of a class, relative to `judge.images_per_class`."""
BUDGETS = (1, 2, 4, 8, 16, 40, 100)
"""Function evaluations of an image."""
GRIDS = ("uniform", "cosine", "power:2")
"""Times of the fixed steps, see `sample.grid`."""
TOLERANCES = (1e-2, 1e-3, 1e-5)
"""rtol and atol of dopri5, which chooses its evaluations itself."""
_MEASURED = ("accuracy", "fidelity", "fd", "kd", "kd_error", "precision", "recall")


class _Cell(NamedTuple):
    """One way to sample; `name` is its key in the file of kept rows."""

    solver: str
    grid: str
    steps: int | None
    tolerance: float | None

    @property
    def sample(self) -> dict:
        changes = {"solver": self.solver, "grid": self.grid, "num_steps": self.steps}
        return {**changes, "rtol": self.tolerance, "atol": self.tolerance}

    @property
    def name(self) -> str:
        how = f"{self.steps} steps" if self.steps else f"tolerance {self.tolerance:g}"
        return f"{self.solver} {self.grid} {how}"


class Rows:
    """Rows of a run by key: kept ones, or made now. The images are read for the first new one."""

    def __init__(self, run: GeneratorOnDisk, path: Path, tell: Tell):
        self._kept, self._tell = KeptRows(path, run), tell
        self._again = functools.cache(lambda: NewestAgain(run))
        # Each group counts as much as it has test images.
        self._counts = run.results.test_counts if run.results else None

    def row(self, key: str, sample: dict, judge: dict, seed: int) -> dict:
        """The measured numbers, and `evaluations` per image."""
        key = f"{key}, seed {seed}"
        if key not in self._kept:
            self._tell(key)
            self._kept.put(key, self._measured(self._again().row(sample, judge, seed)))
        return self._kept[key]

    def _measured(self, row: dict) -> dict:
        pairs = list(zip(row["accuracy"], self._counts or [1] * len(row["accuracy"]), strict=False))
        tested = [(value, count) for value, count in pairs if value is not None]
        total = sum(count for _, count in tested)
        fidelity = mean_and_deviation(list(row["fidelity_per_class"].values()))[0]
        quality = (row.get("quality") or {}).get("all") or {}
        return {
            "accuracy": sum(v * n for v, n in tested) / total if total else None,
            "fidelity": fidelity,
            **{name: quality.get(name) for name in _MEASURED[2:]},
            "evaluations": row["function_evaluations"],
        }


def oversampling(
    run: GeneratorOnDisk, folder: Path, factors: Sequence[float], seeds: Sequence[int], tell: Tell
) -> Analysis:
    """Last accuracy with more samples per class for the judge, which takes as many steps (F10).

    seeds: of the noise and of the judges. The generator is the same everywhere.
    """
    made = Rows(run, folder / "oversampling.json", tell)
    rows = []
    for factor in factors:
        for seed in seeds:
            row = made.row(f"oversample {factor:g}", {}, {"oversample": float(factor)}, seed)
            rows.append((float(factor), seed, *(row[name] for name in _MEASURED)))
    data = Frame(("oversample", "seed", *_MEASURED), rows)
    short = _means(data, ("oversample",), ("accuracy", "fidelity", "recall"))
    title = f"Last accuracy against samples per class, {len(seeds)} seeds"
    draw = functools.partial(drawing.oversampling, data, title)
    note = "Mean and deviation over seeds. More samples make no more steps of the judge."
    return Analysis(title, data, short, draw, note)


def evaluations(
    run: GeneratorOnDisk,
    folder: Path,
    solvers: Sequence[str],
    budgets: Sequence[int],
    grids: Sequence[str],
    seeds: Sequence[int],
    tell: Tell,
) -> Analysis:
    """Accuracy, fidelity, distances and recall against the function evaluations of an image."""
    made = Rows(run, folder / "evaluations.json", tell)
    rows = []
    for cell in _cells(solvers, budgets, grids):
        for seed in seeds:
            row = made.row(cell.name, cell.sample, {}, seed)
            measured = (row[name] for name in _MEASURED)
            rows.append((*cell, row["evaluations"], seed, *measured))
    columns = ("solver", "grid", "steps", "tolerance", "evaluations", "seed", *_MEASURED)
    data = Frame(columns, rows)
    by = ("solver", "grid", "steps", "tolerance")
    short = _means(data, by, ("evaluations", "accuracy", "fidelity", "fd", "kd", "recall"))
    title = f"Samples against function evaluations, {len(seeds)} seeds"
    draw = functools.partial(drawing.evaluations, data, title)
    note = (
        "Mean and deviation over seeds of the noise and of the judge. Fidelity alone misleads: one "
        "step of euler may draw class means, which are all recognised; see recall and FD."
    )
    return Analysis(title, data, short, draw, note)


def _cells(solvers: Sequence[str], budgets: Sequence[int], grids: Sequence[str]) -> Iterator[_Cell]:
    for grid in grids:
        for solver, calls in CALLS_OF_STEP.items():
            for budget in budgets if solver in solvers else ():
                steps = budget // calls
                # One step is the same on every grid.
                if budget % calls == 0 and (steps > 1 or grid == grids[0]):
                    yield _Cell(solver, grid, steps, None)
    for tolerance in TOLERANCES if "dopri5" in solvers else ():
        yield _Cell("dopri5", "uniform", None, tolerance)


def _means(data: Frame, by: Sequence[str], measured: Sequence[str]) -> Frame:
    """Mean and deviation over the rows that are equal in the columns `by`."""
    groups = dict.fromkeys(zip(*(data.column(name) for name in by), strict=True))
    rows = []
    for group in groups:
        same = data.where(**dict(zip(by, group, strict=True)))
        rows.append((*group, *(_shown(same.column(name), name) for name in measured)))
    return Frame((*by, *measured), rows)


def _shown(values: list, name: str) -> str | None:
    mean, deviation = mean_and_deviation(values)
    if mean is None:
        return None
    if name == "evaluations":
        return f"{mean:g}" if not deviation else f"{mean:.0f} ± {deviation:.0f}"
    # Distances have no unit; the others are shares, in %.
    scale, digits = (1, 3) if name in ("fd", "kd") else (100, 1)
    text = f"{scale * mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {scale * deviation:.{digits}f}"


def check(
    solvers: Sequence[str],
    budgets: Sequence[int],
    grids: Sequence[str],
    factors: Sequence[float],
) -> None:
    """Raises `ValueError` for values that no sampler or judge accepts, before anything is drawn."""
    for solver in solvers:
        if solver not in SOLVERS:
            near = hints.did_you_mean(solver, SOLVERS)
            raise ValueError(
                f"--solvers={hints.quoted(solver)}: accepted are {', '.join(SOLVERS)}.{near}"
            )
    for budget in budgets:
        if not 1 <= budget <= 1_000_000:
            raise ValueError(f"--budgets={budget}: whole numbers from 1 to 1000000 are accepted")
    for grid in grids:
        times.check(grid)
    if not any(_cells(solvers, budgets, grids)):
        steps = ", ".join(f"{s} {CALLS_OF_STEP[s]}" for s in solvers if s in CALLS_OF_STEP)
        raise ValueError(
            f"--budgets={','.join(map(str, budgets))}: no solver has so many evaluations; accepted "
            f"are multiples of those of a step: {steps}"
        )
    for factor in factors:
        if not 0 < factor <= 1000:
            raise ValueError(f"--factors={factor:g}: numbers above 0 and up to 1000 are accepted")
