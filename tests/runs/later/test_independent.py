"""Classes that do not need each other: trained alone, taken in from files, on another trunk."""

import json
import shutil
from pathlib import Path

import jax
import killed as moments
import numpy as np
import pytest
import tiny

import flcl
from flcl.adapters import artifact
from flcl.programs import classes as program
from flcl.runs.saved.checkpoint import Checkpoints

FIRST = {"adapter__warm_start": "first"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "all.npz")


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory) -> Path:
    """A run that planned three tasks and has learned the first one."""
    workdir = tmp_path_factory.mktemp("begun") / "run"
    flcl.train(tiny.settings_of(data, **FIRST), workdir, until=1)
    return workdir


@pytest.fixture(scope="module")
def whole(begun, data, tmp_path_factory) -> Path:
    """The same run with all tasks, one after the other."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(begun, workdir)
    run = tiny.settings_of(data, **FIRST)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        moments.end_inside_a_task(patch)
        flcl.train(run, workdir)
    flcl.train(run, workdir, until=1)  # the state inside task 2 stays
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.running()[1]["task"] == 2
    flcl.train(run, workdir)
    return workdir


@pytest.fixture(scope="module")
def files(begun) -> list[Path]:
    """The classes of tasks 3 and 2, each task trained alone; the second one was killed once."""
    before = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file() and p.name != ".lock"}
    run = flcl.open_run(begun)
    written = [*run.learn_only(3)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        moments.end_inside_a_task(patch)
        run.learn_only(2)
    written += run.learn_only(2)
    assert [path.name for path in written] == [
        f"{n}.safetensors" for n in ("eel", "fox", "cat", "dog")
    ]
    assert {p: p.read_bytes() for p in before} == before
    return written


def test_a_run_stops_after_a_task_and_goes_on(begun, whole):
    assert flcl.open_run(begun).learned == (1,) and flcl.open_run(whole).learned == (1, 2, 3)
    results = json.loads((begun / "results.json").read_text())
    assert not results["complete"] and len(results["matrix"]) == 1


def test_tasks_trained_alone_are_those_of_the_sequence(begun, whole, files, data, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(begun, workdir, ignore=shutil.ignore_patterns("only"))
    run = flcl.open_run(workdir)
    assert run.import_classes(files) == ("eel", "fox", "cat", "dog")
    assert run.learned == (1, 2, 3)
    jax.tree.map(np.testing.assert_array_equal, tiny.memory_of(workdir), tiny.memory_of(whole))
    # The command that trained the run tests what was taken in.
    flcl.train(tiny.settings_of(data, **FIRST), workdir)
    one, other = (json.loads((each / "results.json").read_text()) for each in (workdir, whole))
    assert one == other and one["complete"]


def test_what_is_not_independent_is_refused(begun, whole, files, tmp_path):
    run = flcl.open_run(begun)
    for task, message in ((1, "2 to 3"), (4, "2 to 3"), ("2", "2 to 3")):
        with pytest.raises(ValueError, match=message):
            run.learn_only(task)
    config = json.loads((begun / "config.json").read_text())
    for files_of, message in (
        (files[:1], "task 3: its classes come together, and no file has 'fox'"),
        (files[:2], "task 3: task 2 comes before it"),
        ([], "at least one class file"),
        ([files[2], files[2]], "class 'cat' comes twice"),
    ):
        with pytest.raises(ValueError, match=message):
            run.import_classes(files_of)
    with pytest.raises(ValueError, match="knows the class 'eel' already"):
        flcl.open_run(whole).import_classes(files[:2])
    assert json.loads((begun / "config.json").read_text()) == config


def test_with_another_start_tasks_depend_on_each_other(data, tmp_path):
    run = flcl.train(tiny.settings_of(data), tmp_path / "run", until=1)
    with pytest.raises(
        ValueError, match="adapter.warm_start='class' a task depends on those before"
    ):
        run.learn_only(2)


@pytest.fixture(scope="module")
def elsewhere(data, whole, tmp_path_factory) -> Path:
    """A run of the classes of task 1 alone, frozen on the trunk of the other run."""
    folder = tmp_path_factory.mktemp("elsewhere")
    trunk = flcl.open_run(whole).export_trunk(folder / "trunk.safetensors")
    ants = tiny.part(data, [0, 1], folder / "ants.npz", names=["wasp", "fly"])
    # There is room for these classes alone: it grows when others are taken in.
    changes = {"stream__tasks": "1", "stream__capacity": 2, "model__weights": str(trunk)}
    flcl.run(tiny.settings_of(ants, **changes, **FIRST), folder / "run")
    (folder / "trunk.safetensors").rename(folder / "moved.safetensors")
    return folder / "run"


def test_a_trunk_from_outside_is_frozen_from_the_first_task(elsewhere, whole):
    """F13: the file is not needed after the first task."""
    other, own = tiny.memory_of(elsewhere), tiny.memory_of(whole)
    jax.tree.map(np.testing.assert_array_equal, other["trunk"], own["trunk"])
    results = json.loads((elsewhere / "results.json").read_text())
    assert results["steps_per_task"] == [6] and results["complete"]
    config = json.loads((elsewhere / "config.json").read_text())
    assert config["model"]["sha256"] == artifact.trunk_digest(own["trunk"])


def test_a_wrong_trunk_is_refused(elsewhere, data, tmp_path):
    moved = elsewhere.parent / "moved.safetensors"
    for changes, message in (
        ({"model__weights": "nowhere.safetensors"}, "there is no such file"),
        ({"model__weights": str(moved), "model__width": 16}, "model.weights: .*shape"),
        ({"model__weights": str(moved), "model__sha256": "0" * 64}, "has the SHA-256"),
        ({"model__weights": str(moved), "data__channels": 3}, "model.weights"),
        ({"model__sha256": "0" * 64}, "model.weights is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            flcl.run(tiny.settings_of(data, **FIRST, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_class_moves_to_another_run_with_the_same_trunk(elsewhere, whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(elsewhere, workdir)
    origin, run = flcl.open_run(whole), flcl.open_run(workdir)
    before = run.sample(["wasp"], 5).images
    cat, fox = origin.export_classes(["cat", "fox"], tmp_path / "files")
    assert run.import_classes([fox, cat], {"cat": "tiger"}) == ("fox", "tiger")
    assert run.class_names == ("wasp", "fly", "fox", "tiger") and run.learned == (1, 2)
    np.testing.assert_array_equal(
        run.sample(["tiger", "fox"], 5).images, origin.sample(["cat", "fox"], 5).images
    )
    np.testing.assert_array_equal(run.sample(["wasp"], 5).images, before)
    parameters, sample = run.functional()
    theirs, _ = origin.functional()
    ids = [np.array([each.class_names.index(n)]) for each, n in ((run, "tiger"), (origin, "cat"))]
    images = [
        jax.jit(sample)(p, run.key(), i) for p, i in zip((parameters, theirs), ids, strict=True)
    ]
    np.testing.assert_array_equal(*images)
    # It leaves this run as it came.
    again = run.export_classes(["tiger"], tmp_path / "again")[0]
    theirs, ours = artifact.read_class(cat), artifact.read_class(again)
    assert (ours.about.label, ours.about.name) == (theirs.about.label, "tiger")
    jax.tree.map(np.testing.assert_array_equal, ours.factors, theirs.factors)
    stored = json.loads((workdir / "stream.json").read_text())["tasks"][1]
    assert stored["source"] == "class files" and stored["train_images"] == [0, 0]
    # Learning goes on after it, and what was taken in is not tested.
    new = tiny.part(origin.settings.data.source.removeprefix("npz:"), [2, 3], tmp_path / "new.npz")
    run.learn(f"npz:{new}")
    results = json.loads((workdir / "results.json").read_text())
    assert results["complete"] and [row[1] for row in results["matrix"]] == [None] * 3
    assert run.sample(["tiger"], 2).images.shape == (1, 2, 8, 8, 1)


def test_an_import_that_was_killed_happens_or_does_not(elsewhere, whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(elsewhere, workdir)
    file = flcl.open_run(whole).export_classes(["cat"], tmp_path / "files")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        patch.setattr(Checkpoints, "save_task", moments.end)
        flcl.open_run(workdir).import_classes(file)
    assert flcl.open_run(workdir).learned == (1,)
    assert flcl.open_run(workdir).import_classes(file) == ("cat",)
    assert flcl.open_run(workdir).learned == (1, 2)


def test_a_class_of_another_trunk_is_refused(elsewhere, begun, tmp_path, capsys):
    run = flcl.open_run(elsewhere)
    other = tmp_path / "other"
    shutil.copytree(elsewhere, other)
    file = run.export_classes(["fly"], tmp_path / "files")[0]
    content = artifact.read_class(file)
    about = {k: v for k, v in vars(content.about).items() if k not in ("sha256", "layers", "kind")}
    file.write_bytes(artifact.class_bytes(content.factors, **{**about, "trunk": "0" * 64}))
    with pytest.raises(ValueError, match=f"belongs to the trunk {'0' * 64}, and this run has the"):
        flcl.open_run(other).import_classes([file])


def test_the_program_takes_classes_in(elsewhere, whole, tmp_path, capsys):
    from flcl import cli

    workdir = tmp_path / "run"
    shutil.copytree(elsewhere, workdir)
    file = flcl.open_run(whole).export_classes(["cat"], tmp_path / "files")[0]

    def run(*words) -> tuple[int, str]:
        argv = ["flcl classes", *map(str, words)]
        options = {"doc": program.__doc__, "define": program.define, "takes_words": True}
        code = cli.main(program.main, **options, argv=argv)
        told = capsys.readouterr()
        return code, told.out + told.err

    assert run("import", f"--workdir={workdir}", file, "--names=cat:fly")[0] == 2
    code, told = run("import", f"--workdir={workdir}", file, "--names=cat")
    assert code == 2 and "OLD:NEW is needed" in told
    code, told = run("import", f"--workdir={workdir}", file, "--names=cat:puma,cat:lion")
    assert code == 2 and "'cat' has a new name already" in told
    code, told = run("import", f"--workdir={workdir}", file, "--names=cat:lion")
    assert code == 0 and "taken in: lion" in told
    assert "name the class files" in run("import", f"--workdir={workdir}")[1]
