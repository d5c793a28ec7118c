import io

import pytest

from flcl.metrics.matrix import summary
from flcl.report import reading, tables
from flcl.report.console import Console
from flcl.runs.results import RankSelection, from_json


def as_text(values: dict, width: int = 100) -> str:
    return tables.as_text(from_json(values), width)


def cells(text: str, name: str) -> list[str]:
    rows = [line.split() for line in text.splitlines()]
    (row,) = [row for row in rows if row[:1] == [name] and "." in row[-1]]
    return row[1:]


def test_matrix_with_ceiling_and_fidelity(results):
    text = as_text(results)
    assert text.splitlines()[0] == "toy · funlora · cil · seed 7 · accuracy in %"
    assert cells(text, "1") == ["90.0", "90.0"]
    assert cells(text, "2") == ["80.0", "70.0", "73.3"]
    assert cells(text, "3") == ["75.0", "65.0", "60.0", "64.2"]
    matrix_part, summary_part = text.split("last accuracy", 1)
    assert cells(matrix_part, "fidelity") == ["50.0", "25.0", "100.0", "50.0"]
    # In the matrix beside the fidelity, and among the other numbers of the samples.
    assert text.count("recall ") > 2
    # (10 * .99 + 20 * .98 + 30 * .97) / 60
    assert cells(matrix_part, "ceiling") == ["99.0", "98.0", "97.0", "97.7"]
    for number in ("64.2", "75.8", "10.0", "-10.0", "97.7", "50.0"):
        assert number in summary_part


def test_short_class_names_stand_below_the_number_of_the_task(results):
    assert "cat dog" not in as_text(results)  # others are too long
    rows = [
        line.split() for line in as_text({**results, "class_names": list("abcdef")}).splitlines()
    ]
    assert ["1", "2", "3"] in rows and ["after", "task", *"abcdef", "all"] in rows


def test_joint_and_unfinished_runs(results):
    joint = {**results, "matrix": [[0.5, 0.6, 0.7]]}
    joint["summary"] = summary(joint["matrix"], results["test_counts"])
    text = as_text(joint)
    assert cells(text, "joint") == ["50.0", "60.0", "70.0", "63.3"]
    assert "forgetting" not in text
    first = {**results, "matrix": results["matrix"][:1], "ceiling": None, "fidelity": {}}
    del first["quality"]
    first["summary"] = summary(first["matrix"], results["test_counts"])
    text = as_text(first)
    assert cells(text, "1") == ["90.0", "90.0"]
    assert not any(word in text for word in ("forgetting", "fidelity", "ceiling", "not measured"))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_many_tasks_are_split_to_fit(results, width):
    count = 20
    matrix = [[(t + j) / 100 if j <= t else None for j in range(count)] for t in range(count)]
    wide = {**results, "matrix": matrix, "test_counts": [1] * count, "ceiling": [0.5] * count}
    wide["tasks"] = [[0, 1, 2, 3]] * count
    wide["fidelity"] = {"per_task": [0.25] * count, "per_class": {"cat": 0.25}}
    wide["summary"] = summary(matrix, wide["test_counts"])
    text = as_text(wide, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    last = [line.split() for line in text.splitlines() if line.split()[:1] == ["20"]]
    values = [value for line in last for value in line[1:]]
    assert values[:-1] == [f"{19 + j}.0" for j in range(count)]
    assert values[-1] == "28.5"


def test_a_classifier_shows_every_head_drift_and_ranks(classified):
    text = as_text(classified, width=110)
    rows = [line.split() for line in text.splitlines()]
    assert ["after", "task", "photo", "art_painting", "$sketch$", "all"] in rows
    # (10 * .65 + 20 * .55 + 30 * .70) / 60
    assert ["class", "mean", "65.0", "55.0", "70.0", "64.2"] in rows
    # (10 * .85 + 20 * .75 + 30 * .80) / 60
    assert ["lda", "85.0", "75.0", "80.0", "79.2"] in rows
    assert "fidelity" not in text and "ceiling" not in text
    assert ["linear", "class", "mean", "lda"] in rows
    lines = {line[:32].strip(): line[32:].split()[:3] for line in text.splitlines()}
    assert lines["last accuracy"] == ["64.2", "64.2", "79.2"]
    assert lines["last accuracy, task mean"] == ["66.7", "63.3", "80.0"]
    # The means over the first two groups of .9 - .75 and .7 - .65, and so on.
    assert lines["forgetting"] == ["10.0", "5.0", "0.0"]
    assert [*["moved,", "share", "of", "their", "length"], "25.0", "37.5", "0.0"] in rows
    assert [*["turned,", "1", "-", "cosine"], "3.1", "7.0", "0.0"] in rows
    assert ["1", "10", "0.410", "0.000"] in rows
    assert ["2", "4", "0.287", "-0.300", "0.625"] in rows
    assert ["3", "10", "0.574", "0.400", "0.875"] in rows


def test_ranks_show_what_each_was_chosen_from_and_what_the_bases_hold(classified):
    entry = {"candidates": [2, 4], "probabilities": None, "complexity": None, "centred": None}
    losses = [None, [0.5, 0.25], [0.3, 0.29]]
    classified["rank_selection"] = [
        {**entry, "task": k, "rank": r, "held_out": loss}
        for k, r, loss in zip((1, 2, 3), (4, 4, 2), losses, strict=True)
    ]
    held = [{}, {"coverage": 0.125, "columns": 6}, {"coverage": 0.75, "columns": 7}]
    names, rows = reading.ranks(from_json({**classified, "diagnosis": held}))
    assert names[:4] == ["task", "rank", "loss of rank 2", "loss of rank 4"]
    assert names[4:] == ["columns of the bases", "coverage rho"]
    assert rows[0] == ["1", "4", "", "", "", ""]
    assert rows[1] == ["2", "4", "0.500", "0.250", "6", "0.125"]
    assert rows[2] == ["3", "2", "0.300", "0.290", "7", "0.750"]
    text = as_text({**classified, "diagnosis": held}, width=110)
    assert rows[1] in [line.split() for line in text.splitlines()]


def test_a_classifier_with_one_head_and_nothing_selected(classified):
    only = {"class_mean": classified["heads"]["class_mean"]}
    classified |= {"heads": only, "drift": {}, "rank_selection": [], "head": "class_mean"}
    text = as_text(classified)
    assert "drift" not in text and "p(rank)" not in text and "--head" not in text
    assert text.count("class mean") == 1  # the heading of the derived numbers
    still = {"relative": [[0.0, None, None]]}
    assert "drift" not in as_text({**classified, "drift": still, "complete": False})


@pytest.mark.parametrize("width", [60, 80, 104])
def test_derived_numbers_of_heads_that_do_not_fit_get_a_table_of_their_own(classified, width):
    text = as_text(classified, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    rows = [line.split() for line in text.splitlines()]
    # (.9 + 22 / 30 + 38.5 / 60) / 3 is that of the method, then those of the others
    together = ["average", "incremental", "accuracy", "75.8", "66.9", "83.1"]
    wide = together in [row[:6] for row in rows]
    apart = [["class", "mean", "64.2", "66.9"], ["lda", "79.2", "83.1"]]
    assert wide == (width == 104) and all((row in rows) != wide for row in apart)
    assert ["last", "accuracy", "64.2"] in [row[:3] for row in rows]


def test_the_heads_of_an_older_file(older):
    results = from_json(older)
    assert list(reading.heads(results)) == ["linear", "class_mean"]
    assert list(reading.other_heads(results)) == ["class_mean"]
    text = tables.as_text(results, width=200)
    last, mean = older["class_mean"]["matrix"][-1], older["class_mean"]["summary"]["last_accuracy"]
    row = [*map(reading.percent, last), reading.percent(mean)]
    assert ["class", "mean", *row] in [line.split() for line in text.splitlines()]
    assert "answers are those of the head linear, which was trained" in text


def test_heads_come_in_one_order_with_that_of_the_method_first(classified, results):
    heads = classified["heads"]
    classified |= {"heads": {"a new one": heads["lda"], **heads}, "head": "lda"}
    found = reading.heads(from_json(classified))
    assert list(found) == ["lda", "linear", "class_mean", "a new one"]
    # The numbers of the method are those of the run, also if the file has no such entry.
    del heads["linear"]
    found = reading.heads(from_json(classified | {"heads": heads, "head": "linear"}))
    assert list(found) == ["linear", "class_mean", "lda"]
    assert found["linear"].matrix == from_json(classified).matrix
    assert reading.heads(from_json(results)) == {}


@pytest.mark.parametrize(
    ("head", "how"),
    [
        ("linear", ", which was trained task by task."),
        ("lda", ", which was solved from statistics of all tasks."),
        ("a new one", "."),
    ],
)
def test_the_last_line_says_which_head_answers(classified, results, head, how):
    others = [name for name in ("linear", "class_mean", "lda") if name != head]
    classified["heads"].pop("linear" if head == "a new one" else "none", None)
    if head == "a new one":
        others = ["class_mean", "lda"]
    text = as_text({**classified, "head": head}, width=200)
    line = f"The answers are those of the head {head}{how} flcl evaluate --head=NAME asks "
    assert text.splitlines()[-1] == f"{line}another head: {', '.join(others)}."
    assert "answers" not in as_text(results)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"per_class": 3_000, "once": 2_360_000}, "3.0 kB a class, 2.4 MB once"),
        ({"per_class": 256, "once": 0}, "256 bytes a class"),
        ({"per_class": 0, "once": 0}, "none"),
        ({"per_class": "many", "other": 3}, "none"),
    ],
)
def test_bytes_of_statistics(sizes, text):
    assert reading.statistics(sizes) == text


def test_a_fixed_rank_has_no_probability():
    entry = {"task": 2, "candidates": (2, 4)}
    assert RankSelection(**entry, rank=5).probability is None
    assert RankSelection(**entry, rank=5, probabilities=(0.5, 0.5)).probability is None
    assert RankSelection(**entry, rank=4, probabilities=(0.25, 0.75)).probability == 0.75


def test_percent():
    assert [reading.percent(v) for v in (None, 0.0, 0.91666, 1.0)] == ["", "0.0", "91.7", "100.0"]


def test_an_evaluation_shows_every_class_and_what_has_no_image():
    results = {
        "data": "folder:mine",
        "images": 3,
        "top1": 2 / 3,
        "top5": 1.0,
        "head": "linear",
        "after_task": 2,
        "class_names": ["cat", "[red]dog"],
        "confusion": [[2, 1], [0, 0]],
        "per_class": {"cat": 2 / 3, "[red]dog": None},
        "per_domain": {"ink": 1.0, "[red]oil": 0.25, "chalk": None},
    }
    file = io.StringIO()
    tables.print_evaluation(results, Console(file=file, width=100, color_system=None))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["top-1", "accuracy", "66.7"] in lines and ["top-5", "accuracy", "100.0"] in lines
    assert ["cat", "3", "66.7"] in lines and ["[red]dog", "0", "-"] in lines
    assert ["ink", "100.0"] in lines and ["[red]oil", "25.0"] in lines and ["chalk", "-"] in lines
    file = io.StringIO()
    tables.print_evaluation(results | {"per_domain": {}}, Console(file=file, width=100))
    assert "domain" not in file.getvalue()


def test_no_number_is_minus_zero(classified):
    assert reading.percent(-0.0) == reading.percent(-1e-9) == "0.0"
    values = {**classified, "summary": {**classified["summary"], "forgetting": -1e-7}}
    values["rank_selection"] = [{**entry, "centred": -1e-9} for entry in values["rank_selection"]]
    text = as_text(values)
    assert "0.000" in text and "-0.0" not in text
