"""Sampling and evaluation of a run on disk."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flcl
from flcl import compiling
from flcl.devices import mesh as meshes
from flcl.flow import sampler
from flcl.runs import room
from flcl.runs.opened import run as opened_module


@pytest.fixture(scope="module")
def run(finished):
    """The finished tiny run."""
    return flcl.open_run(finished)


def test_an_image_depends_on_seed_class_and_index_alone(run):
    many = run.sample([4, 0, 3], 11)
    few = run.sample([3], 3)
    np.testing.assert_array_equal(many.images[2][:3], few.images[0])
    other = run.sample([3], 3, seed=1)
    assert not np.array_equal(few.images, other.images)
    assert not np.array_equal(many.images[0], many.images[1])


def test_the_number_of_devices_changes_no_image(run, finished, monkeypatch):
    eight = run.sample([2, 5], 6).images
    single = meshes.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(opened_module.meshes, "make_mesh", lambda *_: single)
    one = flcl.open_run(finished).sample([2, 5], 6).images
    # Other batch shapes per device may round differently: at most one level of 255.
    assert np.abs(one.astype(int) - eight.astype(int)).max() <= 1


def test_a_mix_of_labels_has_the_images_of_its_classes(run):
    mixed = run.sample(labels=[3, "fox", 3, 0, 5, 3], seed=2)
    assert mixed.classes == (3, 5, 3, 0, 5, 3) and mixed.names[:2] == ("dog", "fox")
    by_class = run.sample([0, 3, 5], 3, seed=2).images
    places = [(1, 0), (2, 0), (1, 1), (0, 0), (2, 1), (1, 2)]
    np.testing.assert_array_equal(mixed.images, [by_class[i][k] for i, k in places])
    for entries in (np.asarray([4]), jnp.asarray([4]), (4,), 4, "eel", iter(["eel"])):
        again = run.sample(labels=entries)
        np.testing.assert_array_equal(again.images, run.sample([4], 1).images[0])


def test_one_program_samples_any_classes_and_numbers(finished, caplog):
    compiling.forget_programs()
    run, solved = flcl.open_run(finished), {"num_steps": 4, "solver": "heun"}

    def compiled(asked: dict) -> list[str]:
        caplog.clear()
        with jax.log_compiles():
            run.sample(**asked)
        # To read the state after a task, shapes are traced; nothing is compiled for them.
        kinds = "Compiling|Finished tracing sample_chunk"
        return [line for line in caplog.messages if re.match(kinds, line)]

    assert any("sample_chunk" in line for line in compiled({"classes": [0], **solved}))
    for asked in (
        {"classes": [5, 1, 2, 3], "per_class": 2},
        {"per_class": 1},
        {"classes": [4], "per_class": 30},
        {"labels": [1, 2, 1, 5, 0, 4, 3]},
        {"classes": [2], "task": 2},  # the same network with fewer classes
    ):
        assert compiled({**asked, **solved}) == []


@pytest.mark.parametrize(("solver", "calls"), [("euler", 3), ("heun", 6)])
def test_solver_and_steps_decide_the_evaluations(run, solver, calls):
    samples = run.sample([0], 2, solver=solver, num_steps=3)
    assert samples.function_evaluations == calls
    assert samples.images.shape == (1, 2, 8, 8, 1) and samples.images.dtype == np.uint8


def test_a_solver_that_does_not_arrive_is_told_in_one_line(finished, monkeypatch):
    monkeypatch.setattr(sampler, "DOPRI5_MAX_STEPS", 2)
    run = flcl.open_run(finished)
    with pytest.raises(
        ValueError, match=r"sample.solver='dopri5' did not reach t = 1 .*sample.rtol"
    ):
        run.sample([0], 2, solver="dopri5")


def test_dopri5_reports_its_evaluations(run):
    assert run.sample([0], 2, solver="dopri5").function_evaluations >= 7


def test_classes_are_given_by_id_or_name(run):
    by_name, by_id = run.sample(["cat", "fox"], 2), run.sample([2, 5], 2)
    np.testing.assert_array_equal(by_name.images, by_id.images)
    assert by_id.names == ("cat", "fox") and by_name.classes == (2, 5)
    for text in ("2,5", "cat, fox", " cat,5"):
        np.testing.assert_array_equal(run.sample(text, 2).images, by_id.images)
    assert run.sample(5, 1).names == run.sample(np.int64(5), 1).names == ("fox",)
    assert run.sample(np.array([2, 5]), 1).names == run.sample({2: 1, 5: 1}, 1).names
    assert run.sample(per_class=1, task=2).names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [6]}, r"class 6 is not in this run: accepted are 0-5"),
        ({"classes": ["caat"]}, "Did you mean 'cat'"),
        ({"classes": [4], "task": 2}, r"class 4 \(eel\) is not learned after task 2"),
        ({"classes": [0], "task": 4}, r"task=4: this run has learned tasks 1-3"),
        ({"classes": [0], "solver": "rk9"}, r"sample.solver='rk9'"),
        ({"classes": [0], "num_steps": 0}, r"sample.num_steps=0"),
        ({"classes": [0], "per_class": 0}, r"per_class=0"),
        ({"labels": [0], "classes": [0]}, "either labels, or classes and per_class"),
        ({"labels": [0], "per_class": 1}, "either labels, or classes and per_class"),
        ({"labels": []}, r"labels=\[\]: at least one"),
        ({"labels": 2.5}, "labels=2.5: a list of ids or names"),
        ({"labels": [2.5]}, "class 2.5 is not in this run"),
        ({"labels": np.zeros((2, 2), int)}, r"class \[0, 0\] is not in this run"),
        ({"labels": [0, "caat"]}, "Did you mean 'cat'"),
        ({"labels": [0, 4], "task": 2}, r"class 4 \(eel\) is not learned after task 2"),
    ],
)
def test_what_is_not_there_is_named(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run.sample(**arguments)


def test_a_run_says_what_it_is_and_what_it_has_learned(run, finished, tmp_path):
    assert repr(run) == (
        f"<generator 'funlora' in {str(finished)!r}: 3 of 3 tasks learned, 6 classes: ant, bee, "
        "cat, dog, eel, fox>"
    )
    assert run.results.matrix[-1] == tuple(
        json.loads((finished / "results.json").read_text())["matrix"][-1]
    )
    copy = shutil.copytree(finished, tmp_path / "run")
    opened = flcl.open_run(copy)
    (copy / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is not readable as JSON"):
        _ = opened.results
    (copy / "results.json").unlink()
    assert opened.results is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classify", "has no 'classify': only a classifier .* images; this one can .*sample"),
        ("evaluate_on", "has no 'evaluate_on': only a classifier is tested on other images"),
        ("smple", "the run of a generator has no 'smple'. Did you mean 'sample'?"),
    ],
)
def test_what_this_kind_of_run_cannot_do(run, name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(run, name)
    assert not hasattr(run, name)


def test_a_run_of_the_other_kind_is_refused(finished):
    assert flcl.open_run(finished, "generator").kind == "generator"
    message = "this is the run of a generator, which classifies nothing; use flcl sample or"
    with pytest.raises(ValueError, match=message):
        flcl.open_run(finished, "classifier")
    with pytest.raises(ValueError, match="kind='x': accepted are generator, classifier"):
        flcl.open_run(finished, "x")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        flcl.open_run(tmp_path)


def test_evaluating_again_gives_the_same_matrix_and_leaves_the_workdir_alone(run, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    again = run.evaluate()
    stored = json.loads((finished / "results.json").read_text())
    assert again["matrix"] == stored["matrix"]
    assert again["fidelity"] == stored["fidelity"] and again["ceiling"] == stored["ceiling"]
    assert again["quality"] == stored["quality"]
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_evaluating_with_other_settings(run):
    results = run.evaluate({"num_steps": 1}, {"oversample": 2.0, "repeats": 2})
    assert results["sampling"]["function_evaluations"] == 1
    assert results["sampling"]["images_per_class"] == [16] * 6
    assert len(results["rows"][0]["repeats"]) == 2
    with pytest.raises(ValueError, match=r"judge.ovrsample.*Did you mean 'judge.oversample'"):
        run.evaluate(judge={"ovrsample": 2.0})


def test_a_judge_batch_that_devices_do_not_share_is_told_before_any_work(run):
    with pytest.raises(ValueError, match=r"judge.batch_size=30: must be a multiple of the \d"):
        run.evaluate(judge={"batch_size": 30})


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"classes": ["9" * 5000]}, "is not in this run"),
        ({"classes": []}, "at least one is needed"),
        ({"classes": ""}, "classes='': at least one is needed"),
        ({"classes": 3.5}, "classes=3.5: a list of ids or names is needed, such as [3, 5]"),
        ({"classes": "3,x"}, "class 'x' is not in this run"),
        ({"classes": "3\r\nx"}, "class '3 x' is not in this run"),
        ({"classes": [[3]]}, "class [3] is not in this run"),
        ({"classes": [True]}, "class True is not in this run"),
        ({"per_class": 10**12}, "per_class=1000000000000: an integer from 1 to 1000000"),
        ({"per_class": 2.5}, "per_class=2.5: an integer"),
        ({"seed": 10**30}, "seed=1000000000000000000000000000000: an integer"),
        ({"num_steps": 10**15}, "sample.num_steps=1000000000000000: must be 1 to 1000000"),
    ],
)
def test_a_question_that_has_no_answer_is_one_line(asked, why, run):
    with pytest.raises(ValueError) as caught:
        run.sample(**{"classes": [0], "per_class": 1, **asked})
    assert why in str(caught.value) and len(str(caught.value)) < 300


def test_more_samples_than_the_machine_holds(run, monkeypatch):
    monkeypatch.setattr(room, "_host_memory", lambda: 8 * 8 * 100)
    assert run.sample(0, 1).images.shape[:2] == (1, 1)
    with pytest.raises(ValueError, match="per_class=101: the images of 1 classes need"):
        run.sample([0], 101)
    with pytest.raises(ValueError, match="labels: 101 images need"):
        run.sample(labels=[0] * 101)
