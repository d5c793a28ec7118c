"""A comparison as a file: table, data, picture or page."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from flcl import files, hints
from flcl.comparison import texts
from flcl.comparison.table import Comparison
from flcl.shown import shown
from flcl.storage import paths

PICTURES = (".png", ".svg", ".pdf")

_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip
_MARKED = re.compile(
    r"^<!-- compare: (?P<name>[\w .-]+) -->\n(?P<text>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE
)


def save(comparison: Comparison, path: str | os.PathLike, against: str = "", by: str = "") -> Path:
    """Writes a comparison in the form of the ending of `path`, completely or not at all.

    against, by: a picture has this number on its x axis, see `points.plot`; without it, it has the
    curves over tasks.
    """
    target = paths.local(path, "path")
    if target.suffix not in FORMS:
        raise ValueError(f"path={str(path)!r}: must end in {', '.join(FORMS)}")
    content = FORMS[target.suffix]
    if target.suffix in PICTURES:
        from flcl.comparison import curves, points  # late: they load matplotlib

        if against:
            return points.plot(comparison, target, against, by)
        return curves.plot(comparison, target)
    if target.suffix == ".html":
        from flcl.comparison import page  # late: it loads matplotlib

        return page.write(comparison, target)
    return files.write(target, content(comparison))


def cells(comparison: Comparison) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """(name, [(text, whether it is shown) of each column]) of every row."""
    for row in comparison.rows:
        pairs = zip(comparison.columns, row.cells, strict=True)
        yield shown(row.name), [(texts.cell(column, cell), cell.shown) for column, cell in pairs]


def markdown(comparison: Comparison) -> str:
    """A table of Markdown with the notes below it."""
    headings = ["run", *(column.heading for column in comparison.columns)]
    rows = [headings, ["---"] * len(headings)]
    for name, entries in cells(comparison):
        marked = [text if is_shown else f"{text}, {texts.NOT_SHOWN}" for text, is_shown in entries]
        rows.append([name, *marked])
    lines = ["| " + " | ".join(_escaped(text) for text in row) + " |" for row in rows]
    lines[1] = "|" + "---|" * len(headings)
    return "\n".join([*lines, "", *map(shown, comparison.notes)]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def latex(comparison: Comparison) -> str:
    """A tabular of LaTeX with booktabs; what is not shown is grey, which needs xcolor."""
    lines = [f"% {note}" for note in map(shown, comparison.notes)]
    lines += ["% \\usepackage{booktabs,xcolor}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * len(comparison.columns)}}}", "\\toprule"]
    headings = ["run", *(column.heading for column in comparison.columns)]
    lines += [" & ".join(map(_tex, headings)) + r" \\", "\\midrule"]
    for name, entries in cells(comparison):
        grey = [_tex(t) if s else rf"\textcolor{{gray}}{{{_tex(t)}}}" for t, s in entries]
        lines.append(" & ".join([_tex(name), *grey]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def table_of_commas(comparison: Comparison) -> str:
    """CSV with all digits: for each column its mean, sd and n, of a difference its interval."""
    headings, rows = ["run"], []
    for column in comparison.columns:
        headings += [f"{column.name}{part}" for part in ("", " sd", " n")]
        if column.kind == "difference":
            headings += [f"{column.name}{part}" for part in (" low", " high", " shown")]
    for row in comparison.rows:
        values: list = [shown(row.name)]
        for column, cell in zip(comparison.columns, row.cells, strict=True):
            values += [cell.mean, cell.sd, cell.n]
            if column.kind == "difference":
                values += [cell.low, cell.high, cell.shown]
        rows.append(values)
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([headings, *rows])
    return file.getvalue()


def as_json(comparison: Comparison) -> bytes:
    """JSON with all digits, the numbers of every run and its workdir."""
    columns = comparison.columns
    entries = []
    for row in comparison.rows:
        runs = [
            {
                "workdir": str(run.workdir),
                "seed": run.settings.seed,
                "order": run.order,
                "values": {c.name: c.value(run) for c in columns if c.kind != "difference"},
            }
            for run in row.runs
        ]
        pairs = zip(columns, row.cells, strict=True)
        numbers = {column.name: cell._asdict() for column, cell in pairs}
        entries.append({"name": row.name, "cells": numbers, "runs": runs})
    told = [{"name": c.name, "unit": c.unit, "kind": c.kind} for c in columns]
    content = {"columns": told, "reference": comparison.reference, "rows": entries}
    return files.as_json(content | {"notes": list(comparison.notes)})


FORMS: dict[str, Callable[[Comparison], str | bytes] | None] = {
    ".md": markdown,
    ".csv": table_of_commas,
    ".tex": latex,
    ".json": as_json,
    ".html": None,
    **dict.fromkeys(PICTURES),
}
"""The endings that `save` accepts; pictures and pages have modules of their own."""


def into(comparison: Comparison, path: str | os.PathLike, name: str = "") -> Path:
    """Replaces what stands between two marks in a Markdown file by a comparison.

    The marks are the lines `<!-- compare: NAME -->` and `<!-- end -->`. name: which of several;
    empty = the only one. Raises `ValueError` for a file without these marks.
    """
    target = paths.local(path, "--into")
    text = files.read_bytes(target).decode()
    marks = {match["name"]: match for match in _MARKED.finditer(text)}
    if not marks:
        raise ValueError(f"{target}: has no lines <!-- compare: NAME --> and <!-- end -->")
    if not name and len(marks) > 1:
        raise ValueError(f"{target}: has several tables; add #NAME, one of {', '.join(marks)}")
    name = name or next(iter(marks))
    if name not in marks:
        raise ValueError(
            f"{target}: has no line <!-- compare: {name} -->."
            f"{hints.did_you_mean(name, list(marks))} There are {', '.join(marks)}"
        )
    start, end = marks[name].span("text")
    return files.write(target, f"{text[:start]}\n{markdown(comparison)}\n{text[end:]}")
