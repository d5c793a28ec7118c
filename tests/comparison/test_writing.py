"""A comparison as a file, in a terminal, and inside a Markdown file."""

import csv
import io
import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

import flcl
from flcl import programs
from flcl.comparison import columns as named
from flcl.comparison import curves, points, terminal, texts, writing
from flcl.comparison.columns import Column
from flcl.comparison.numbers import Cell
from flcl.report.console import Console


@pytest.fixture(scope="module")
def table(digits):
    names = [digits / f"{name}-*" for name in ("frozen", "default", "paper", "ranpac", "joint")]
    return flcl.compare(names, reference="frozen", allow=["head"])


@pytest.mark.parametrize("name", ["digits", "generators", "pacs50", "cifar50"])
def test_a_table_is_made_by_the_command_above_it(name, request, root, tmp_path, monkeypatch):
    """A file of results has what the command above its table makes of the stored runs."""
    file = "RESULTS" if name == "generators" else "RESULTS-classifiers"
    text = (root / f"configs/{file}.md").read_text()
    written = re.search(rf"^flcl compare runs/{name}/\*(.*?)^```", text, re.M | re.S)[1]
    words = shlex.split(written.replace("\\\n", " "))
    assert words[-1] == f"--into=configs/{file}.md#{name}"
    copy = tmp_path / "README"
    found = next(each for each in writing._MARKED.finditer(text) if each["name"] == name)
    start, end = found.span("text")
    copy.write_text(f"{text[:start]}nothing\n{text[end:]}")
    cells = request.getfixturevalue(name)
    argv = ["flcl", f"{cells}/*", *words[:-1], f"--into={copy}#{name}"]
    monkeypatch.setattr("sys.argv", argv)
    assert programs.run("compare") == 0
    assert copy.read_text() == text


def test_cells_as_people_read_them():
    def text(cell, unit="percent", kind="mean"):
        return texts.cell(Column("x", "x", unit, lambda run: None, kind=kind), cell)

    assert text(Cell(92.46, 0.449, 3)) == "92.5 ± 0.4 (3)"
    assert text(Cell(92.46, None, 1)) == "92.5 (1)"
    assert text(Cell()) == "-"
    assert text(Cell(1234.4, 12.3, 3), "seconds") == "1,234 ± 12 (3)"
    assert text(Cell(2846.0, 0.0, 3), "count") == "2,846 (3)"
    assert text(Cell(0.1234567, 0.01, 3), "count") == "0.1235 ± 0.01 (3)"
    assert text(Cell(-0.04, 1.0, 3, -1.0, 0.94), kind="difference") == "+0.0 [-1.0, +0.9] (3)"
    assert text(Cell(2.0, None, 1, shown=False), kind="difference") == "+2.0 (1)"
    assert text(Cell(1.4, 0.1, 3), kind="error") == "± 1.4"


def test_what_is_not_shown_is_marked_in_every_form(table, tmp_path):
    unsure = table.cell("fmlora", "difference.last_accuracy")
    sure = table.cell("ranpac", "difference.last_accuracy")
    assert not unsure.shown and sure.shown
    lines = {line.split(" | ")[0].strip("| "): line for line in str(table).splitlines()}
    assert lines["fmlora"].count(", not shown") == 1
    assert "not shown" not in lines["ranpac"]
    latex = writing.latex(table)
    assert latex.count(r"\textcolor{gray}{") == str(table).count(", not shown")
    assert r"ranpac & 98.4 $\pm$" in latex and latex.count(r"\\") == len(table.rows) + 1
    file = io.StringIO()
    terminal.show(
        table, Console(file=file, width=300, force_terminal=True, color_system="standard")
    )
    wide, narrow = file.getvalue(), io.StringIO()
    terminal.show(table, Console(file=narrow, width=80, color_system=None))
    # Columns that do not fit are in a further table; no cell is cut or folded.
    assert (
        narrow.getvalue().count("run ") > 1 and max(map(len, narrow.getvalue().split("\n"))) <= 80
    )
    for _, entries in writing.cells(table):
        assert all(text in narrow.getvalue() and text in wide for text, _ in entries)
    grey = [line for line in file.getvalue().splitlines() if "\x1b[90m" in line]
    assert [line for line in grey if "fmlora" in line] and not any("ranpac" in x for x in grey)
    page = table.save(tmp_path / "page.html").read_text()
    assert page.count('class="grey"') == str(table).count(", not shown")


def test_data_files_have_all_digits(table, tmp_path):
    rows = list(csv.DictReader(table.save(tmp_path / "a.csv").read_text().splitlines()))
    values = json.loads(table.save(tmp_path / "a.json").read_text())
    for row, entry, written in zip(table.rows, values["rows"], rows, strict=True):
        assert entry["name"] == written["run"] == row.name
        for column, cell in zip(table.columns, row.cells, strict=True):
            assert entry["cells"][column.name] == cell._asdict()
            assert written[column.name] == ("" if cell.mean is None else str(cell.mean))
            assert written[f"{column.name} n"] == str(cell.n)
        per_run = [run["values"]["last_accuracy"] for run in entry["runs"]]
        assert np.mean(per_run) == pytest.approx(entry["cells"]["last_accuracy"]["mean"])


def test_pictures_show_means_and_bands(table, tmp_path):
    accuracies = curves.of_runs(table.rows[1], "")
    assert accuracies.shape == (3, 5)
    last = table.cell(table.rows[1].name, "last_accuracy").mean
    assert 100 * accuracies[:, -1].mean() == pytest.approx(last)
    assert curves.of_runs(table.rows[0], "linear").size == 0  # frozen has no such head
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = table.save(tmp_path / f"a{suffix}")
        content = path.read_bytes()
        assert content.startswith(magic)
        assert table.save(path).read_bytes() == content  # no date, no random name
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    svg = (tmp_path / "a.svg").read_text()
    assert svg.count("FillBetweenPolyCollection") >= len(table.rows) - 1  # a line for `joint`


def test_points_are_means_against_another_number(table, tmp_path):
    across = named.find("bytes_per_class", _runs(table))
    located = points.points_of(table, across)
    assert len(located) > 2
    for number, (x, y, deviation) in located.items():
        row = table.rows[number]
        assert x == pytest.approx(np.mean([across.value(run) for run in row.runs]))
        accuracies = [100 * run.results.summary.last_accuracy for run in row.runs]
        assert y == pytest.approx(np.mean(accuracies))
        assert deviation == pytest.approx(np.std(accuracies, ddof=1) if accuracies[1:] else 0)
    path = table.save(tmp_path / "a.svg", "bytes_per_class", "method")
    content = path.read_text()
    joined = len({table.rows[number].runs[0].settings.method for number in located})
    assert content.count("<!-- bytes per class -->") == 1 and joined > 1
    with pytest.raises(
        ValueError, match="--by='methd': no run has this key. Did you mean 'method'"
    ):
        table.save(path, "bytes_per_class", "methd")
    with pytest.raises(ValueError, match="no run has this number"):
        table.save(path, "nothing")


def _runs(table) -> list:
    return [run for row in table.rows for run in row.runs]


def test_the_page_links_to_the_reports(copied, tmp_path):
    folder = copied("frozen-*")
    (folder / "frozen-natural-s0" / "report.html").write_text("a page")
    page = flcl.compare(folder / "*").save(tmp_path / "page.html").read_text()
    assert page.count("<a href=") == 1
    assert 'href="runs/frozen-natural-s0/report.html"' in page
    with pytest.raises(ValueError, match=r"must end in \.md, \.csv"):
        flcl.compare(folder / "*").save(tmp_path / "page.txt")


def test_a_name_from_elsewhere_is_text(table, tmp_path):
    hostile = "a|b <i>&_% \x1b[2J"
    rows = [table.rows[0].__class__(hostile, row.cells, row.runs) for row in table.rows[:1]]
    changed = table.__class__(table.columns, tuple(rows), "", table.notes)
    assert r"| a\|b &lt;i>&_% \x1b[2J |" in str(changed)
    assert "<i>" not in changed.save(tmp_path / "a.html").read_text()
    assert r"a|b $<$i$>$\&\_\% \textbackslash{}x1b[2J" in writing.latex(changed)


def test_only_the_text_between_the_marks_is_replaced(table, tmp_path):
    path = tmp_path / "notes"
    around = "before\n<!-- compare: one -->\nold\n<!-- end -->\nafter\n"
    path.write_text(around + around.replace("one", "two"))
    with pytest.raises(ValueError, match="several tables; add #NAME, one of one, two"):
        writing.into(table, path)
    with pytest.raises(ValueError, match="compare: twoo -->. Did you mean 'two'"):
        writing.into(table, path, "twoo")
    writing.into(table, path, "two")
    head, tail = path.read_text().split("<!-- compare: two -->\n")
    assert head == around + "before\n"
    assert tail == f"\n{table}\n<!-- end -->\nafter\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines <!-- compare: NAME -->"):
        writing.into(table, path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "folders of runs are missing, such as runs/digits/*"),
        (["--out=a.docx", "x"], "--out=a.docx: must end in .md or .csv"),
        (["/nowhere/at/all"], "/nowhere/at/all holds no run"),
        (["--refrence=a", "x"], "Did you mean 'reference'"),
    ],
)
def test_mistakes_on_the_command_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["flcl", *words])
    assert programs.run("compare") == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
