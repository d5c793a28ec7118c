"""A comparison: rows are groups of runs, columns are their numbers."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from flcl import hints
from flcl.comparison import columns as named
from flcl.comparison import facts, groups, numbers, protocol, stored
from flcl.comparison.columns import Column
from flcl.comparison.numbers import Cell
from flcl.comparison.stored import StoredRun


@dataclasses.dataclass(frozen=True)
class Row:
    """A group of runs that differ only in seed and order.

    Attributes:
      name: its title, with the keys that tell it from others.
      cells: one for each column.
      runs: what was averaged.
    """

    name: str
    cells: tuple[Cell, ...]
    runs: tuple[StoredRun, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """A table over runs, with what is needed to read it.

    Attributes:
      columns: see `columns.Column`.
      rows: see `Row`.
      reference: the name of the row of which differences are taken; empty = there is none.
      notes: sentences below the table: what its numbers are, and of which data.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reference: str
    notes: tuple[str, ...]

    def cell(self, row: str, column: str) -> Cell:
        """The cell of a row and a column by name; `KeyError` for a name that is not there."""
        for each in self.rows:
            for place, known in enumerate(self.columns):
                if (each.name, known.name) == (row, column):
                    return each.cells[place]
        raise KeyError(f"no cell in row {row!r} and column {column!r}")

    def save(self, path: str | os.PathLike, against: str = "", by: str = "") -> Path:
        """Writes the comparison as the ending of `path` says: see `writing.FORMS`.

        against: a picture shows the first column against this number, such as
        `parameters.parameters_per_class`, and not the curves over tasks; by: rows with an equal
        value of this key are joined, see `points.plot`.
        """
        from flcl.comparison import writing  # late: pictures load matplotlib

        return writing.save(self, path, against, by)

    def __repr__(self) -> str:
        runs = sum(len(row.runs) for row in self.rows)
        return f"<comparison of {runs} runs: {len(self.rows)} rows, {len(self.columns)} columns>"

    def __str__(self) -> str:
        from flcl.comparison import writing  # late: it imports this module

        return writing.markdown(self)


def compare(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    columns: str | Sequence[str] = (),
    reference: str = "",
    rows: str | Sequence[str] = (),
    allow: str | Sequence[str] = (),
) -> Comparison:
    """Compares finished runs: mean and standard deviation over seeds and orders.

    Args:
      paths: folders of runs, or patterns such as `runs/digits/*`.
      columns: names of numbers, see `columns.find`; empty = the usual ones of the kind of run.
      reference: the row to which the others are compared in pairs with the same seed and order.
      rows: the rows to show, in this order; empty = all, in the order of the paths.
      allow: parts of the protocol that may differ, and `unfinished` to leave such runs out.

    Raises `ValueError` in one line for a path without a run, for damaged files, for runs that are
    not finished or have different protocols (it names both sides), and for a name of a row or a
    column that does not exist. Nothing in the folders is executed, and no link in them is followed.
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not listed:
        raise ValueError("no run is named: give folders of runs, or patterns such as runs/digits/*")
    columns, rows, allow = (
        [each] if isinstance(each, str) else list(each) for each in (columns, rows, allow)
    )
    runs, notes = stored.read_all(stored.find(listed), allow)
    chosen = _chosen(groups.make(runs), rows, reference)
    runs = [run for group in chosen for run in group.runs.values()]
    if len({run.results.kind for run in runs}) > 1:
        raise ValueError("the runs are those of generators and of classifiers: compare one kind")
    found = [named.find(name, runs) for name in columns or named.default(runs, bool(reference))]
    differences = [column.name for column in found if column.kind == "difference"]
    if differences and not reference:
        raise ValueError(f"--columns={differences[0]}: a reference is needed, --reference=ROW")
    heads_are_named = all(column.head != "" for column in found)
    mixed = protocol.check(runs, heads_are_named, allow)
    base = next((group for group in chosen if group.name == reference), None)
    made = tuple(
        Row(
            group.name,
            tuple(_cell(column, group, base) for column in found),
            tuple(group.runs.values()),
        )
        for group in chosen
    )
    told = facts.sentences(found, chosen, reference)
    return Comparison(tuple(found), made, reference, (*told, *mixed, *notes))


def _chosen(
    every: Sequence[groups.Group], rows: Sequence[str], reference: str
) -> list[groups.Group]:
    """The groups that `rows` names, in that order; all if it is empty."""
    by_name = {group.name: group for group in every}
    for flag, names in (("rows", rows), ("reference", [reference] if reference else [])):
        for name in names:
            if name not in by_name:
                raise ValueError(
                    f"--{flag}={hints.quoted(name)}: there is no such row."
                    f"{hints.did_you_mean(name, list(by_name))} There are {'; '.join(by_name)}"
                )
    if rows and reference and reference not in rows:
        raise ValueError(f"--reference={hints.quoted(reference)}: it is none of --rows")
    return [by_name[name] for name in dict.fromkeys(rows)] if rows else list(every)


def _cell(column: Column, group: groups.Group, base: groups.Group | None) -> Cell:
    """One number of a group; a difference is taken over the pairs that both groups have."""
    if column.kind != "difference":
        return numbers.over_runs([column.value(run) for run in group.runs.values()])
    if base is None or group is base:
        return Cell()
    common = [repeat for repeat in group.runs if repeat in base.runs]
    return numbers.paired(
        [column.value(group.runs[repeat]) for repeat in common],
        [column.value(base.runs[repeat]) for repeat in common],
    )
