"""Tasks that were not planned: a run that learned them one by one is the run that planned them."""

import datetime
import json
import shutil
from pathlib import Path

import jax
import killed as moments
import numpy as np
import pytest
import tiny

import flcl
from flcl.report.page import later_tasks
from flcl.report.writers import EVALUATION, read_metrics
from flcl.runs.later import learning
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.stored import read_stream
from flcl.runs.saved.workdir import locked

METHODS = ("funlora", "fmlora")
# In FM-LoRA two classes have room at first, so it doubles twice in three tasks of two classes. Each
# room has its own programs, and those of a U-Net take longest: FunLoRA has room for all.
CHANGES = {
    "funlora": {"straighten__steps": 2, "straighten__pairs": 8, "straighten__num_steps": 1}
    | {"adapter__record_ranks": 1},
    "fmlora": {"stream__capacity": 2},
}
# When the learning of tasks 2 and 3 is killed.
KILLS = {"funlora": ("straightening", None), "fmlora": ("step", "evaluation")}


@pytest.fixture(scope="module")
def parts(data, tmp_path_factory) -> list[Path]:
    """All six classes, and each pair of them as a source of its own."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [tiny.part(data, [k, k + 1], folder / f"{k}.npz") for k in (0, 2, 4)]
    return [data, *pairs]


@pytest.fixture(scope="module")
def planned(parts, tmp_path_factory) -> dict[str, Path]:
    """A run of each method that planned all three tasks."""
    runs = {}
    for method in METHODS:
        runs[method] = tmp_path_factory.mktemp(f"planned-{method}")
        flcl.run(tiny.run_of(parts[0], method, **CHANGES[method]), runs[method])
    return runs


@pytest.fixture(scope="module")
def first(parts, tmp_path_factory) -> dict[str, Path]:
    """A run of each method that planned only the first task."""
    runs = {}
    for method in METHODS:
        runs[method] = tmp_path_factory.mktemp(f"first-{method}")
        run = tiny.run_of(parts[1], method, stream__tasks="1", **CHANGES[method])
        flcl.run(run, runs[method])
    return runs


@pytest.fixture(scope="module")
def learned(parts, first, tmp_path_factory) -> dict[str, Path]:
    """The same, with two tasks that were learned later and were killed once: see `KILLS`."""
    runs = {}
    for method in METHODS:
        runs[method] = tmp_path_factory.mktemp(f"learned-{method}") / "run"
        shutil.copytree(first[method], runs[method])
        for number, source in enumerate(parts[2:], start=2):
            if moment := KILLS[method][number - 2]:
                kill(runs[method], source, moment, number)
            flcl.open_run(runs[method]).learn(f"npz:{source}")
    return runs


def kill(workdir: Path, source: Path, moment: str, task: int) -> None:
    """Kills the learning of a task: inside it, at its end, or when it is not evaluated yet."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        if moment == "step":
            moments.end_inside_a_task(patch)
        elif moment == "straightening":
            moments.end_after_straightening(patch)
        else:
            patch.setattr(moments.ClassifierEvaluation, "evaluate", moments.end)
        flcl.open_run(workdir).learn(f"npz:{source}")
    stored = json.loads((workdir / "stream.json").read_text())
    assert len(stored["tasks"]) == task
    if moment == "straightening":  # the whole training was saved before
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.running()[1]["step"] == 6 and checkpoints.tasks() == [1]


@pytest.mark.parametrize("method", METHODS)
def test_learned_one_by_one_is_what_was_planned(method, planned, learned):
    both = planned[method], learned[method]
    jax.tree.map(np.testing.assert_array_equal, *map(tiny.memory_of, both))
    results = [json.loads((each / "results.json").read_text()) for each in both]
    assert results[0] == results[1] and results[0]["complete"]


def test_ranks_are_recorded_at_the_same_steps_whatever_was_killed(planned, learned):
    both = [read_metrics(each["funlora"] / "metrics.jsonl") for each in (planned, learned)]
    ranks = [
        [{**r, "time": 0} for r in each if r["phase"] != EVALUATION and "mean_rank" in r]
        for each in both
    ]
    assert ranks[0] == ranks[1]
    places = [(record["task"], record["step"]) for record in ranks[0]]
    assert places == [(task, step) for task in (1, 2, 3) for step in (2, 4, 6)]
    assert {"rank/00", "rank/03", "max_rank"} < set(ranks[0][0])


@pytest.mark.parametrize("method", METHODS)
def test_a_task_owns_its_source(method, parts, learned):
    stored = json.loads((learned[method] / "stream.json").read_text())
    assert [task["source"] for task in stored["tasks"]] == [f"npz:{path}" for path in parts[1:]]
    assert [task["classes"] for task in stored["tasks"]] == [
        ["ant", "bee"],
        ["cat", "dog"],
        ["eel", "fox"],
    ]
    assert stored["tasks"][1]["train_images"] == [24, 24]
    today = datetime.date.today()
    dates = [datetime.date.fromisoformat(task["learned"]) for task in stored["tasks"][1:]]
    assert all(0 <= (today - date).days <= 1 for date in dates)
    assert "learned" not in stored["tasks"][0] and stored["tasks"][2]["changed"] == {}


@pytest.fixture(scope="module")
def gone(parts, first, tmp_path_factory) -> dict[str, Path]:
    """Runs that learned a second task when the images of the first one were not there any more."""
    runs = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp(f"gone-{method}")
        shutil.copytree(first[method], folder / "run")
        config = json.loads((folder / "run" / "config.json").read_text())
        config["data"]["source"] = f"npz:{folder / 'nowhere.npz'}"  # the place of data may change
        (folder / "run" / "config.json").write_text(json.dumps(config))
        runs[method] = folder / "run"
        changes = {"phase2.steps": 4} if method == "funlora" else {"train.epochs": 1.0}
        flcl.open_run(runs[method]).learn(f"npz:{parts[2]}", changes)
    return runs


@pytest.mark.parametrize("method", METHODS)
def test_old_images_may_be_gone(method, gone, first, parts):
    results = json.loads((gone[method] / "results.json").read_text())
    assert results["complete"]
    assert results["steps_per_task"] == ([6, 4] if method == "funlora" else [6, 3])
    row = results["matrix"][1]
    assert row[0] is None and 0 <= row[1] <= 1
    before = json.loads((first[method] / "results.json").read_text())
    assert results["matrix"][0][0] == before["matrix"][0][0]
    assert results["test_counts"] == [16, 16]
    assert results["summary"]["images_per_task"] == [16, 16]
    assert results["summary"]["last_accuracy"] == row[1]
    assert results["summary"]["forgetting"] is None
    stored = json.loads((gone[method] / "stream.json").read_text())
    changed = stored["tasks"][1]["changed"]
    assert changed == ({"phase2.steps": 4} if method == "funlora" else {"train.epochs": 1.0})
    assert stored["train_images"] == [24] * 4
    assert (gone[method] / "samples" / "before_after.png").is_file() == (method == "funlora")
    page = (gone[method] / "report.html").read_text()
    assert "not tested" in page and stored["tasks"][1]["learned"] in page
    old, new = tiny.memory_of(first[method]), tiny.memory_of(gone[method])
    if method == "funlora":  # nothing of an old class changes
        rows = jax.tree.map(lambda leaf: leaf[:2], [old["bank"], new["bank"]])
        jax.tree.map(np.testing.assert_array_equal, *rows)
        jax.tree.map(np.testing.assert_array_equal, old["trunk"], new["trunk"])


def test_a_generator_says_what_the_fidelity_rests_on(gone):
    results = json.loads((gone["funlora"] / "results.json").read_text())
    assert results["ceiling"][0] is None and results["ceiling"][1] is not None
    assert (
        results["fidelity"]["per_task"][0] is None
        and results["fidelity"]["per_task"][1] is not None
    )
    assert [row["fidelity_classes"] for row in results["rows"]] == [2, 4]
    # The row of the first task stays as it was measured.
    assert results["rows"][0]["fidelity_per_task"][0] is not None
    first, second = (row["quality"] for row in results["rows"])
    assert first["per_task"][0]["recall"] is not None
    assert second["per_task"][0] is None and second["all"] == second["per_task"][1]
    assert second["per_class"]["0"] is None and second["per_class"]["2"] is not None


@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_learned_tasks_is_used_like_any_other(method, gone, parts):
    run = flcl.open_run(gone[method])
    assert run.class_names == ("ant", "bee", "cat", "dog") and run.learned == (1, 2)
    if method == "funlora":
        assert run.sample(["dog", "ant"], 2).images.shape == (2, 2, 8, 8, 1)
        np.testing.assert_array_equal(
            run.sample(["ant"], 2).images, run.sample(["ant"], 2, task=1).images
        )
    else:
        with np.load(parts[2]) as arrays:
            assert run.classify(arrays["test_images"]).scores.shape == (16, 4)
        assert run.evaluate_on(f"npz:{parts[2]}")["top1"] is not None
    again = run.evaluate()
    stored = json.loads((gone[method] / "results.json").read_text())
    assert again["matrix"][1] == stored["matrix"][1]


def refused(workdir: Path, message: str, source: str, changes=None, **options) -> None:
    """Learning is refused with this message, and the workdir stays as it was."""
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(ValueError, match=message):
        flcl.open_run(workdir).learn(source, changes, **options)
    after = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    assert before == after


def test_what_cannot_be_learned_is_refused_in_one_line(first, parts, tmp_path):
    workdir, known = first["funlora"], f"npz:{parts[1]}"
    refused(workdir, "no new class, this run knows 'ant', 'bee' already", known)
    refused(workdir, "data='nowhere': accepted are .*folder:PATH", "nowhere")
    refused(workdir, "none.npz", f"npz:{tmp_path / 'none.npz'}")
    new = f"npz:{parts[2]}"
    refused(
        workdir, r"phase1.steps=3: belongs to all tasks.*phase2.steps", new, {"phase1.steps": 3}
    )
    refused(workdir, "seed=1: belongs to all", new, {"seed": 1})
    refused(
        workdir,
        "config key 'phase2.step' is read by no part.*phase2.steps",
        new,
        {"phase2.step": 3},
    )
    refused(workdir, "phase2.steps", new, {"phase2.steps": 0})
    refused(tmp_path / "nothing", "holds no run|no run", new)
    with locked(workdir):
        refused(workdir, "in use by process", new)


@pytest.mark.parametrize("name", ["Ant", "ANT", "\uff41nt", " ant"])
def test_a_name_that_looks_like_a_known_one_is_asked_about(first, parts, tmp_path, name):
    source = tiny.part(parts[0], [2, 3], tmp_path / "alike.npz", names=[name, "dog"])
    message = r"differs from the known class 'ant' only in case or Unicode form: is it the same"
    refused(first["funlora"], message, f"npz:{source}")
    refused(first["funlora"], "distinct='cow': .* no new class", f"npz:{source}", distinct=["cow"])


def test_images_of_another_kind_are_refused(parts, tmp_path):
    workdir = tmp_path / "run"
    run = tiny.classifier_of(parts[1], "class_mean", stream__tasks="1", data__resize=False)
    flcl.run(run, workdir)
    with np.load(parts[2]) as arrays:
        arrays = dict(arrays)
    for half in ("train", "test"):
        arrays[f"{half}_images"] = arrays[f"{half}_images"].repeat(2, axis=1).repeat(2, axis=2)
    np.savez(tmp_path / "large.npz", **arrays)
    refused(workdir, "16.*8|8.*16", f"npz:{tmp_path / 'large.npz'}")


def test_a_run_that_is_not_finished_learns_nothing_else(first, parts, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(first["fmlora"], workdir)
    # Nothing of it is saved: it did not happen, and another task may come in its place.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        patch.setattr(moments.TaskTraining, "run", moments.end)
        flcl.open_run(workdir).learn(f"npz:{parts[2]}", {"data.tfds_dir": "elsewhere"})
    # Where images lie changes no result, and who continues the task has to know it.
    assert json.loads((workdir / "config.json").read_text())["data"]["tfds_dir"] == "elsewhere"
    assert json.loads((workdir / "stream.json").read_text())["tasks"][1]["changed"] == {}
    kill(workdir, parts[3], "step", 2)
    assert json.loads((workdir / "stream.json").read_text())["class_names"] == [
        "ant",
        "bee",
        "eel",
        "fox",
    ]
    refused(workdir, f"has begun task 2 from npz:{parts[3]}", f"npz:{parts[2]}")
    refused(workdir, "has begun task 2", f"npz:{parts[3]}", {"train.epochs": 1.0})


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"noise": [3]}, r"tasks\[2\].noise has no label for each"),
        ({"noise": [-5, 0]}, r"tasks\[2\].noise has no label for each"),
        ({"noise": [2**40, 0]}, r"tasks\[2\].noise has no label for each"),
        ({"train_images": [-1, 24]}, r"tasks\[2\] has impossible numbers of images"),
        ({"test_images": [10**30, 8]}, r"tasks\[2\] has impossible numbers of images"),
        ({"classes": ["ant", "bee"]}, r"tasks\[2\] does not fit the 2 classes"),
        ({"classes": ["eel", "eel"]}, r"tasks\[2\] does not fit the 2 classes"),
        ({"domain": "sand"}, r"tasks\[2\] was not planned and is not the next"),
    ],
)
def test_entries_that_cannot_be_true_are_named(learned, tmp_path, lie, message):
    """A workdir from somebody else may say anything."""
    values = json.loads((learned["funlora"] / "stream.json").read_text())
    values["tasks"][2] |= lie
    (tmp_path / "stream.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        read_stream(tmp_path)


def test_a_wrong_key_of_a_task_is_named_with_its_place(learned, tmp_path):
    workdir = Path(shutil.copytree(learned["funlora"], tmp_path / "run"))
    values = json.loads((workdir / "stream.json").read_text())
    values["tasks"][2]["changed"] = {"phase1.steps": 3}
    (workdir / "stream.json").write_text(json.dumps(values))
    (workdir / "digests.json").unlink()
    with pytest.raises(ValueError, match=r"^stream.json: tasks\[2\].changed: phase1.steps=3"):
        flcl.open_run(workdir)


def test_the_report_needs_no_optional_entry_of_a_task(learned, tmp_path):
    values = json.loads((learned["funlora"] / "stream.json").read_text())
    del values["tasks"][2]["changed"], values["tasks"][2]["domain"]
    (tmp_path / "stream.json").write_text(json.dumps(values))
    (_, *_), (number, _, name, _, changed) = later_tasks(tmp_path)
    assert (number, name, changed) == ("3", "eel, fox", "none")


def test_a_source_becomes_the_next_domain(tmp_path):
    data = tiny.write_domains(tmp_path / "domains.npz")
    run = tiny.classifier_of(
        data,
        "frozen",
        stream__scenario="dil",
        stream__tasks="domains",
        heads__means="domain",
        head="lda",
    )
    workdir = tmp_path / "run"
    opened = flcl.train(run, workdir)
    sand = tiny.part(
        tiny.write_data(tmp_path / "all.npz", seed=1), [0, 2, 5], tmp_path / "sand.npz"
    )
    opened.learn(f"npz:{sand}")
    results = json.loads((workdir / "results.json").read_text())
    assert results["task_names"] == ["ink", "oil", "sand"] and results["complete"]
    assert results["test_counts"] == [48, 24, 24] and None not in results["matrix"][2]
    stored = json.loads((workdir / "stream.json").read_text())
    assert stored["domain_names"] == ["ink", "oil", "sand"]
    assert stored["tasks"][2]["domain"] == "sand"
    assert stored["tasks"][2]["train_images"] == [24, 0, 24, 0, 0, 24]
    counts = tiny.memory_of(workdir)["means"]["count"]
    assert counts[2, :6].tolist() == [24, 0, 24, 0, 0, 24] and counts.sum() == 6 * 36 + 72
    refused(workdir, "domain 'sand' is known already", f"npz:{sand}")
    refused(workdir, "has 2 domains .*one is learned at a time", f"npz:{data}")
    new = tiny.part(tmp_path / "all.npz", [0, 1], tmp_path / "new.npz", names=["ant", "gnu"])
    refused(workdir, "class 'gnu' is not one of the 6 classes", f"npz:{new}")


def test_what_another_process_learned_meanwhile_stays(parts, tmp_path, monkeypatch):
    workdir, real = tmp_path / "run", learning.load_source
    flcl.run(tiny.classifier_of(parts[1], "frozen", stream__tasks="1"), workdir)

    def load_while_another_learns(*given, **options):
        monkeypatch.setattr(learning, "load_source", real)
        flcl.open_run(workdir).learn(f"npz:{parts[3]}")
        return real(*given, **options)

    monkeypatch.setattr(learning, "load_source", load_while_another_learns)
    with pytest.raises(ValueError, match="has learned something else since this began: repeat"):
        flcl.open_run(workdir).learn(f"npz:{parts[2]}")
    run = flcl.open_run(workdir)
    assert run.class_names == ("ant", "bee", "eel", "fox")
    run.learn(f"npz:{parts[2]}")
    assert run.class_names == ("ant", "bee", "eel", "fox", "cat", "dog")


def test_a_joint_run_learns_nothing_more(parts, tmp_path):
    run = tiny.classifier_of(parts[1], "frozen", stream__joint=True, stream__tasks="2")
    flcl.run(run, tmp_path / "run")
    refused(
        tmp_path / "run", "a joint run, which learns all classes in its one task", f"npz:{parts[2]}"
    )


def test_a_run_that_did_not_finish_its_plan_learns_nothing_more(parts, tmp_path):
    run = tiny.classifier_of(parts[0], "frozen")
    opened = flcl.train(run, tmp_path / "run", until=2)
    assert opened.learned == (1, 2)
    refused(tmp_path / "run", "finished 2 of its 3 planned tasks: repeat", f"npz:{parts[1]}")
