import io
import json
import types

import jax
import numpy as np
import pytest

from flcl import settings
from flcl.evaluate.pictures import Answers, Pictures
from flcl.metrics.matrix import summary
from flcl.report import answers, page
from flcl.report.console import Console
from flcl.report.pictures import plots
from flcl.report.reporter import Reporter
from flcl.report.writers import read_metrics
from flcl.runs.results import from_json

RUN = settings.FunLoRARun(phase1=settings.Phase(steps=4), phase2=settings.Phase(steps=2))


def images(labels, shade: int = 0) -> dict[int, np.ndarray]:
    return {k: np.full((12, 8, 8, 1), 10 * k + shade, np.uint8) for k in labels}


def partial(results: dict, rows: int) -> dict:
    matrix = results["matrix"][:rows]
    derived = {"matrix": matrix, "summary": summary(matrix, results["test_counts"])}
    return {**results, **derived, "complete": rows == 3}


def mistake(shade: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, label and answer of one wrong answer."""
    return np.full((1, 4, 4, 3), shade, np.uint8), np.array([0]), np.array([1])


def play(
    workdir, results, console, tasks=(1, 2, 3), first_step: int = 0, finished: bool = True
) -> None:
    """A run as the outer loop tells it."""
    reporter = Reporter(workdir, RUN, console)
    for index in tasks:
        task = types.SimpleNamespace(index=index)
        steps = 4 if index == 1 else 2
        advance = reporter.progress(f"task {index}", steps)
        reporter.begin_task(task, 1 if index == 1 else 2, first_step)
        for step in range(first_step + 1, steps + 1):
            advance(step)
            reporter.record(step, {"loss": 1.0 / step})
        now = partial(results, index)
        pictures = Pictures(images(range(2 * index)), images(range(1, 2 * index), shade=5))
        reporter.evaluated(task, from_json(now), pictures)
        (workdir / "results.json").write_text(json.dumps(now))
        first_step = 0
    if finished:
        reporter.finished(from_json(results))


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=160)


def test_a_whole_run_leaves_its_files_and_says_so(tmp_path, results, console):
    play(tmp_path, results, console)
    text = console.file.getvalue()
    assert "task 1  4/4" in text
    assert (
        "task 2 of 3, in %: accuracy 73.3, forgetting 10.0, fidelity 50.0, recall 45.0, KD" in text
    )
    assert "KD 0.0123 ± 0.0021, FD 3.25; samples" in text
    assert str(tmp_path / "samples" / "task_02.png") in text
    assert str(tmp_path / "report.html") in text and "average incremental accuracy" in text
    present = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    pictures = {f"samples/task_0{i}.{kind}" for i in (1, 2, 3) for kind in ("png", "npz")}
    assert pictures | {"samples/over_tasks.png", "report.html", "metrics.jsonl"} <= present
    # That page is of the whole run.
    assert "<summary>over tasks</summary>" in (tmp_path / "report.html").read_text()
    with np.load(tmp_path / "samples" / "task_02.npz") as kept:
        assert kept["images"].shape == (4, 10, 8, 8, 1)
        assert kept["images"][3, 0, 0, 0, 0] == 30 and kept["labels"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("unplanned", "shown"), [((), False), ((2,), False), ((2, 3), True)])
def test_a_task_that_was_not_planned_is_drawn_before_and_after(
    tmp_path, results, console, monkeypatch, unplanned, shown
):
    drawn, real = {}, plots.plot_samples_over_tasks

    def plot(images, names, path, **others):
        drawn[path.name] = (images, names, others)
        real(images, names, path, **others)

    monkeypatch.setattr(plots, "plot_samples_over_tasks", plot)
    entries = [(str(task), "2026-01-31", "x", "npz:x", "none") for task in unplanned]
    monkeypatch.setattr(page, "later_tasks", lambda workdir: iter(entries))
    play(tmp_path, results, console)
    text = (tmp_path / "report.html").read_text()
    assert (tmp_path / "samples" / "before_after.png").is_file() == shown
    assert ("<summary>before and after</summary>" in text) == shown
    assert "before_after.png" not in drawn or shown
    if shown:
        (before, after), names, others = drawn["before_after.png"]
        assert list(before) == [0, 1, 2, 3] and list(after) == [0, 1, 2, 3, 4, 5]
        assert before[0].shape == (8, 8, 8, 1) and (after[5] == 50).all()
        assert names[3:] == [
            results["class_names"][3],
            *(f"{name} (new)" for name in results["class_names"][4:]),
        ]
        assert others["headings"] == ["before task 3", "after task 3, which was not planned"]


def test_a_run_killed_after_its_last_results_has_all_pictures(
    tmp_path, results, console, monkeypatch
):
    entries = [("3", "2026-01-31", "x", "npz:x", "none")]
    monkeypatch.setattr(page, "later_tasks", lambda workdir: iter(entries))
    play(tmp_path, results, console, finished=False)
    names = {path.name for path in (tmp_path / "samples").iterdir()}
    assert {"before_after.png", "over_tasks.png"} <= names
    assert "<summary>before and after</summary>" in (tmp_path / "report.html").read_text()


def test_a_resumed_run_records_the_same(tmp_path, results, console):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    play(whole, results, console)
    play(broken, results, console, tasks=(1, 2))
    # As if killed in task 2 after its first step was saved: the rest is done again.
    play(broken, results, console, tasks=(2, 3), first_step=1)

    def content(folder):
        records = read_metrics(folder / "metrics.jsonl")
        return [{k: v for k, v in record.items() if k != "time"} for record in records]

    assert content(broken) == content(whole)
    evaluations = [r for r in content(whole) if r["phase"] == "evaluation"]
    assert [(r["task"], r["step"]) for r in evaluations] == [(1, 4), (2, 2), (3, 2)]
    assert evaluations[2]["accuracy"] == pytest.approx(38.5 / 60)


def test_other_processes_are_silent(tmp_path, results, console, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    reporter = Reporter(tmp_path, RUN, console)
    task = types.SimpleNamespace(index=1)
    reporter.say("hello")
    reporter.begin_task(task, 1, 0)
    advance = reporter.progress("task 1", 1)
    advance(1)
    reporter.record(1, {"loss": 1.0})
    reporter.evaluated(task, from_json(partial(results, 1)), Pictures(images(range(2))))
    reporter.finished(from_json(results))
    assert console.file.getvalue() == "" and list(tmp_path.iterdir()) == []


def test_progress_can_be_switched_off_without_losing_lines(tmp_path, console):
    quiet = settings.FunLoRARun(runtime=settings.Runtime(progress=False))
    reporter = Reporter(tmp_path, quiet, console)
    reporter.progress("task 1", 2)(2)
    reporter.say("[bold]1/2[/bold]")
    assert console.file.getvalue() == "[bold]1/2[/bold]\n"


def test_a_classifier_has_numbers_but_no_samples(tmp_path, classified, console):
    reporter = Reporter(tmp_path, settings.FMLoRARun(), console)
    for index in (1, 2, 3):
        task = types.SimpleNamespace(index=index)
        reporter.begin_task(task, min(index, 2), 0)
        reporter.record(1, {"loss": 1.0, "accuracy": 0.5})
        now = partial(classified, index)
        for name, head in classified["heads"].items():
            other = partial(classified | {"matrix": head["matrix"]}, index)
            now["heads"] = {**now["heads"], name: {k: other[k] for k in ("matrix", "summary")}}
        shown = Answers(np.eye(2, dtype=int) * index, *mistake(index))
        reporter.evaluated(task, from_json(now), Pictures(answers=shown))
        # The page of every task is there as soon as the task is evaluated.
        page = (tmp_path / "report.html").read_text()
        assert f"wrong answers after task {index}" in page
        assert ("not complete" in page) == (index < 3)
    (tmp_path / "results.json").write_text(json.dumps(classified))
    reporter.finished(from_json(classified))
    text = console.file.getvalue()
    wanted = "task 2 of 3, in %: accuracy 73.3, forgetting 10.0; other heads: {}\n"
    assert wanted.format("class mean 56.7, lda 70.0") in text
    assert "samples" not in text.split("report:")[0]
    assert not (tmp_path / "samples").exists()
    kept = answers.read(tmp_path, 2)
    assert kept.task == 3 and kept.confusion.tolist() == [[3, 0], [0, 3]]
    assert kept.images.tolist() == mistake(3)[0].tolist()
    assert (kept.labels.tolist(), kept.answers.tolist()) == ([0], [1])
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["phase"] == "evaluation"]
    assert [record["step"] for record in records] == [4, 2, 2]
    assert records[2]["class_mean_accuracy"] == pytest.approx(38.5 / 60)
    assert records[2]["lda_accuracy"] == pytest.approx(47.5 / 60)
    assert "linear_accuracy" not in records[2]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "accuracy.png",
        "confusion.png",
        "matrix.png",
        "loss.png",
        "drift.png",
        "rank_selection.png",
    }
