"""Names from somebody else in tables, bars, lines, pictures and on the page."""

import io

import pytest

from flcl.report import page, tables
from flcl.report.console import Console
from flcl.report.pictures import grids
from flcl.report.progress import ProgressBar
from flcl.runs.results import from_json

HOSTILE = "\x1b]0;owned\x07\n\u202e[red]:cat:"
SHOWN = r"\x1b]0;owned\x07\n\u202e[red]:cat:"
CONTROLS = ("\x1b", "\x07", "\u202e")


def console(**options) -> Console:
    return Console(file=io.StringIO(), width=200, color_system=None, **options)


@pytest.fixture
def foreign(classified) -> dict:
    """Results of a classifier in which every name is hostile."""
    classified |= {"name": HOSTILE, "class_names": [HOSTILE, HOSTILE + "2"], "head": HOSTILE}
    classified |= {"task_names": [HOSTILE] * 3, "scenario": f"dil{HOSTILE}", "method": HOSTILE}
    classified["weights"]["source"] = HOSTILE
    return classified


def test_tables(foreign):
    out = console()
    tables.print_results(from_json(foreign), out)
    text = out.file.getvalue()
    assert SHOWN in text and r"\x1b]0;owned" in text
    assert not any(control in text for control in CONTROLS)
    title, *rest = text.splitlines()
    assert title.count(SHOWN) == 3  # in one line
    assert all(not line.startswith(("[red]", ":cat:")) for line in rest)


def test_an_evaluation(foreign):
    names = foreign["class_names"]
    results = {
        "data": f"folder:{HOSTILE}",
        "images": 1,
        "top1": 1.0,
        "top5": 1.0,
        "head": HOSTILE,
        "after_task": 1,
        "class_names": names,
        "confusion": [[1, 0], [0, 0]],
        "per_class": dict.fromkeys(names, 1.0),
        "per_domain": {HOSTILE: 1.0},
    }
    out = console()
    tables.print_evaluation(results, out)
    text = out.file.getvalue()
    assert f"folder:{SHOWN}" in text and f"{SHOWN}2" in text
    assert not any(control in text for control in CONTROLS)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar(terminal):
    out = console(force_terminal=terminal)
    bar = ProgressBar(HOSTILE, 1, console=out)
    bar(1)
    text = out.file.getvalue()
    assert SHOWN in text and "\x07" not in text and "\u202e" not in text


def test_the_page(foreign, tmp_path):
    foreign |= {"method": "fmlora", "scenario": "dil"}  # a title of one line
    text = page.write_page(tmp_path, from_json(foreign)).read_text()
    assert SHOWN in text
    assert not any(control in text for control in CONTROLS)


def test_pictures():
    assert grids.plain(f"$x$ {HOSTILE}") == rf"\$x\$ {SHOWN}"
