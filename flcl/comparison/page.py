"""A comparison as one self-contained HTML page with links to the report of every run."""

import base64
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from flcl import files
from flcl.comparison import curves, writing
from flcl.comparison.table import Comparison
from flcl.report import html

_REPORT = "report.html"


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the page; returns its path. Links lead from its folder to those of the runs."""
    with tempfile.TemporaryDirectory() as folder:
        picture = curves.plot(comparison, Path(folder) / "curves.png").read_bytes()
    environment = html.environment("flcl.comparison")
    text = environment.get_template("comparison.html").render(
        count=sum(len(row.runs) for row in comparison.rows),
        headings=[column.heading for column in comparison.columns],
        rows=list(writing.cells(comparison)),
        reference=comparison.reference,
        notes=comparison.notes,
        curves=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        groups=[(row.name, list(_links(row.runs, path.parent))) for row in comparison.rows],
    )
    return files.write(path, text)


def _links(runs, folder: Path):
    """(seed, order, link to the report or None, workdir) of every run."""
    for run in runs:
        report = run.workdir / _REPORT
        link = quote(os.path.relpath(report, folder)) if report.is_file() else None
        yield run.settings.seed, run.order, link, str(run.workdir)
