"""The cost of what stands for old images, and the diagnosis of statistics."""

import pytest

from flcl.report import facts, page, tables
from flcl.report.numbers import old_classes
from flcl.runs.results import from_json


@pytest.fixture
def diagnosed(classified):
    """Three tasks of which the head `lda` and another one were diagnosed."""
    classified["head"] = "lda"
    rows = []
    for task in (1, 2, 3):
        accuracy = classified["matrix"][task - 1][:task]
        kinds = {
            kind: {"lda": [value] * task, "ridge": [value / 2] * task}
            for kind, value in (("stale", 0.25), ("true", 0.75))
        }
        drift = {"relative": [0.0] * task, "cosine": [0.0] * task}
        heads = {"lda": accuracy, "ridge": [0.5] * task}
        rows.append({"accuracy": accuracy, "drift": drift, "statistics": kinds, **heads})
    classified["rows"] = rows
    classified["old_classes"] = {
        "statistics": {"once": 1000, "per_class": 20},
        "real_images": {"once": 0, "per_class": 19_200},
        "real_images_per_class": 100,
        "generator": {"once": 42_372, "per_class": 292},
        "samples_per_class": 100,
        "unlabelled_images": 7,
    }
    return classified


def test_the_head_of_the_method_comes_after_every_task_and_others_after_the_last(diagnosed):
    rows = old_classes.diagnosed(from_json(diagnosed))
    assert [(row.head, row.task) for row in rows] == [
        ("lda", 1), ("lda", 2), ("lda", 3), ("ridge", 3),
    ]  # fmt: skip
    assert rows[2].used == pytest.approx((0.75 * 10 + 0.65 * 20 + 0.6 * 30) / 60)
    assert (rows[2].stale, rows[2].true) == (pytest.approx(0.25), pytest.approx(0.75))
    assert (rows[3].stale, rows[3].used) == (pytest.approx(0.125), pytest.approx(0.5))


def test_the_table_and_the_page_show_it(diagnosed, tmp_path):
    results = from_json(diagnosed)
    lines = [line.split() for line in tables.as_text(results).splitlines()]
    assert ["lda,", "after", "task", "3", "25.0", "64.2", "75.0"] in lines
    text = page.write_page(tmp_path, results).read_text()
    assert old_classes.TITLE in text and "ridge, after task 3" in text


def test_the_costs_are_facts(diagnosed):
    told = dict(facts.facts(from_json(diagnosed), {}, {}))
    assert told["bytes of the statistics"] == "1,040 (1,000 once, 20 per class)"
    assert told["bytes of the generator"] == "42,956 (42,372 once, 292 per class)"
    name = "bytes of 100 real images per class, which are not stored"
    assert told[name] == "38,400 (0 once, 19,200 per class)"
    assert told["samples of each old class"] == "100"
    assert told["images without labels for the drift"] == "7"


def test_a_run_without_them_shows_nothing(classified, tmp_path):
    results = from_json(classified)
    assert old_classes.diagnosed(results) == [] and not [*old_classes.tables(results)]
    assert old_classes.TITLE not in page.write_page(tmp_path, results).read_text()
    assert not [name for name in dict(facts.facts(results, {}, {})) if name.startswith("bytes of")]
