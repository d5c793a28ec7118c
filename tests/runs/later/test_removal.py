"""A class that is removed leaves no byte and moves no other, wherever the work is stopped."""

import dataclasses
import datetime
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import flcl
from flcl.runs.later import removal
from flcl.runs.saved.checkpoint import DamagedError
from flcl.storage.seals import Seals

TODAY = datetime.date.today().isoformat()


@pytest.fixture(scope="module")
def before(finished):
    """The finished run: images of all classes, and its memory on the host."""
    run = flcl.open_run(finished)
    return run.sample(None, 3).images, jax.tree.map(np.asarray, run._memory(3))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(folder: Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flat(bank, label) -> np.ndarray:
    return np.concatenate([leaf[label] for leaf in jax.tree.leaves(bank)])


def check_gone(workdir, before, label=2, sampled=True):
    """The class has no factors in its stored task, and every other class is as it was."""
    images, memory = before
    run = flcl.open_run(workdir)
    after = jax.tree.map(np.asarray, run._memory(3))
    jax.tree.map(np.testing.assert_array_equal, after["trunk"], memory["trunk"])
    for other in range(6):
        expected = flat(memory["bank"], other) * (other != label)
        np.testing.assert_array_equal(flat(after["bank"], other), expected)
    if sampled:
        left = run.sample(None, 3)
        assert left.classes == tuple(other for other in range(6) if other != label)
        np.testing.assert_array_equal(left.images, np.delete(images, label, axis=0))
    folders = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert not {"removing", "removing_old"} & folders
    kept = np.delete(np.stack([flat(memory["bank"], k) for k in range(6)]), label, axis=0)
    assert removal.traces(workdir, flat(memory["bank"], label), kept.ravel()) == []


def test_a_removed_class_is_gone_and_no_other_moves(copy, before):
    others = {t: content(copy / "checkpoints" / "tasks" / t) for t in ("1", "3")}
    bank = before[1]["bank"]
    (file,) = flcl.open_run(copy).export_classes(["cat"], copy.parent / "kept")
    found = removal.traces(copy, flat(bank, 2), np.concatenate([flat(bank, k) for k in (0, 1, 3)]))
    assert found and all("checkpoints/tasks/2/" in str(path) for path in found)
    (gone,) = removal.remove_classes(copy, ["cat"])
    assert (gone.name, gone.task, gone.when) == ("cat", 2, TODAY)
    check_gone(copy, before)
    for task, files in others.items():
        assert content(copy / "checkpoints" / "tasks" / task) == files
    run = flcl.open_run(copy)
    assert [entry.removed for entry in run.classes()] == [None, None, TODAY, None, None, None]
    for ask in (lambda: run.sample(["cat"]), lambda: run.export_classes([2], copy)):
        with pytest.raises(ValueError, match=rf"class 2 \(cat\) was removed on {TODAY}"):
            ask()
    assert len(run.export_classes(None, copy.parent / "out")) == 5
    with pytest.raises(ValueError, match="'cat' was removed from this run; give it another name"):
        run.import_classes([file])
    with pytest.raises(ValueError, match="was removed on"):
        removal.remove_classes(copy, [2])


def test_the_command_that_trained_the_run_brings_nothing_back(copy, before, data):
    results = (copy / "results.json").read_bytes()
    removal.remove_classes(copy, ["cat"])
    flcl.run(tiny.settings_of(data), copy)
    check_gone(copy, before)
    assert (copy / "results.json").read_bytes() == results


@pytest.fixture(scope="module")
def new(data, tmp_path_factory) -> Path:
    """Two new classes as a source of their own."""
    with np.load(data) as arrays:
        arrays = dict(arrays)
    for half in ("train", "test"):
        rows = arrays[f"{half}_labels"] < 2
        arrays[f"{half}_images"] = 255 - arrays[f"{half}_images"][rows]
        arrays[f"{half}_labels"] = arrays[f"{half}_labels"][rows]
    path = tmp_path_factory.mktemp("new") / "new.npz"
    np.savez(path, **arrays | {"class_names": np.array(["gnu", "hen"])})
    return path


def check_learned(workdir, old):
    """The row of the new task has no number of the group that lost a class; old rows stay."""
    results = json.loads((workdir / "results.json").read_text())
    assert results["complete"] and results["rows"][:3] == old["rows"]
    assert [value is None for value in results["matrix"][3]] == [False, True, False, False]
    assert results["summary"]["images_per_task"][3] == 48


def test_a_generator_goes_on_learning(copy, before, new, data):
    old = json.loads((copy / "results.json").read_text())
    removal.remove_classes(copy, ["cat"])
    run = flcl.open_run(copy)
    files = content(copy)
    with pytest.raises(ValueError, match="class 'cat' was removed from this run; leave it out"):
        run.learn(f"npz:{data}")
    assert content(copy) == files
    run.learn(f"npz:{new}")
    images, memory = before
    left = run.sample(None, 3)
    assert left.names == ("ant", "bee", "dog", "eel", "fox", "gnu", "hen")
    np.testing.assert_array_equal(left.images[:5], np.delete(images, 2, axis=0))
    for other in range(6):
        expected = flat(memory["bank"], other) * (other != 2)
        np.testing.assert_array_equal(flat(run._memory(4)["bank"], other), expected)
    check_learned(copy, old)
    fidelity = run.results.fidelity
    assert "cat" not in fidelity.per_class and fidelity.per_class["dog"] is not None
    assert run.results.rows[3].fidelity_classes == 7
    with np.load(copy / "samples" / "task_04.npz") as arrays:
        assert arrays["labels"].tolist() == [0, 1, 3, 4, 5, 6, 7]
    removal.remove_classes(copy, ["ant", "bee"])  # no class is left of the first two rows' groups
    matrix = flcl.open_run(copy).evaluate()["matrix"]
    assert [value is None for value in matrix[0]] == [True] * 4
    assert [value is None for value in matrix[3]] == [True, True, False, False]


def test_a_new_class_starts_from_none_that_was_removed(finished):
    """Whatever is in the place of a removed class is not read."""
    run = flcl.open_run(finished)
    memory, task = run._memory(3), run.stream.tasks[2]

    def start(bank, removed):
        stream = dataclasses.replace(run.stream, removed=removed)
        method = run._setup.method
        method = type(method)(method.run, stream)
        return method.begin({**memory, "bank": bank}, task, jax.random.key(0))[0]["factors"]

    def filled(labels, value):
        return jax.tree.map(lambda leaf: leaf.at[np.array(labels)].set(value), memory["bank"])

    for labels in ((0, 2), (0, 1, 2, 3)):
        starts = [start(filled(labels, value), labels) for value in (0.0, 9.0)]
        jax.tree.map(np.testing.assert_array_equal, *starts)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(starts[0]))


@pytest.fixture(scope="module")
def classifier(data, tmp_path_factory) -> Path:
    """A complete run whose every task stores the rows of all classes."""
    workdir = tmp_path_factory.mktemp("runs") / "classifier"
    heads = ("linear", "class_mean", "lda")
    changes = {"heads__fit": heads, "lora__blocks": "0"}
    flcl.run(tiny.classifier_of(data, "lora_sequential", **changes), workdir)
    return workdir


def saves(workdir: Path, task: int) -> dict:
    return content(workdir / "checkpoints" / "tasks" / str(task))


def rows_of(memory, label) -> list[np.ndarray]:
    """The column and the bias, the sum and the count of a class."""
    head, means = memory["head"], memory["means"]
    of_head = [head["kernel"][:, label], head["bias"][label]]
    return [*of_head, means["sum"][label], means["count"][label]]


def test_a_classifier_forgets_a_class_and_goes_on(classifier, tmp_path, new, data):
    workdir = Path(shutil.copytree(classifier, tmp_path / "run"))
    old = json.loads((workdir / "results.json").read_text())
    with np.load(data) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    run = flcl.open_run(workdir)
    memories = [jax.tree.map(np.asarray, run._memory(t)) for t in (1, 2, 3)]
    before = {head: run.classify(images, head=head).scores for head in ("class_mean", "lda")}
    killed = tmp_path / "killed"
    states_of(workdir, killed, lambda: removal.remove_classes(workdir, ["cat"]))
    run = flcl.open_run(workdir)
    assert [entry.removed for entry in run.classes()] == [None, None, TODAY, None, None, None]
    # Stopped when one of its two tasks is written again.
    stopped = sorted(killed.iterdir(), key=lambda path: int(path.name[4:]))
    one = next(path for path in stopped if saves(path, 2) != saves(classifier, 2))
    assert saves(one, 3) == saves(classifier, 3)
    removal.remove_classes(one, ["cat"])
    memory = flcl.open_run(one)._memory(3)
    jax.tree.map(np.testing.assert_array_equal, memory, run._memory(3))
    others = [0, 1, 3, 4, 5]
    for task, memory in enumerate(memories, start=1):
        after = jax.tree.map(np.asarray, run._memory(task))
        for label in others:
            for value, wanted in zip(rows_of(after, label), rows_of(memory, label), strict=True):
                np.testing.assert_array_equal(value, wanted)
        if task > 1:
            assert all(np.any(value) for value in rows_of(memory, 2))
            assert [np.any(value) for value in rows_of(after, 2)] == [False, False, False, True]
            assert rows_of(after, 2)[3] == -24
        for name in ("trunk", "lora", "held_out"):
            jax.tree.map(np.testing.assert_array_equal, after[name], memory[name])
        for numbers in rows_of(memory, 2)[::2]:
            assert removal.traces(workdir, numbers, np.zeros(0, np.float32)) == []
    scores = {head: run.classify(images, head=head).scores for head in before}
    np.testing.assert_array_equal(scores["class_mean"][:, others], before["class_mean"][:, others])
    for head, values in scores.items():
        assert np.isneginf(values[:, 2]).all()
        now, then = (v[:, others] - v[:, :1] for v in (values, before[head]))
        np.testing.assert_allclose(now, then, rtol=1e-3, atol=1e-3)
    assert 2 not in run.classify(images[labels == 2]).classes
    assert run.evaluate_on(f"npz:{data}")["images_learned"] == 40
    kept = sorted(path.name for path in (workdir / "features").iterdir())
    assert kept == ["group_01.npz", "group_03.npz"]
    run.learn(f"npz:{new}")
    assert run.classify(images).scores.shape == (48, 8)
    check_learned(workdir, old)
    again = run.evaluate()["matrix"]
    assert again[3] == list(run.results.matrix[3])
    assert [value is None for value in again[1]] == [False, True, True, True]
    removal.remove_classes(workdir, [0, 1, 3, 4, 5, 6, 7])
    run = flcl.open_run(workdir)
    with pytest.raises(ValueError, match="every class learned after task 4 was removed"):
        run.classify(images)
    with pytest.raises(ValueError, match="nothing can be tested: every group"):
        run.evaluate()


def test_the_old_save_does_not_count_any_more(copy, finished):
    removal.remove_classes(copy, ["cat"])
    stored = copy / "checkpoints" / "tasks" / "2"
    shutil.rmtree(stored)
    shutil.copytree(finished / "checkpoints" / "tasks" / "2", stored)
    with pytest.raises(DamagedError, match="is not the one that this run wrote"):
        flcl.open_run(copy).sample(["dog"], 1)


def test_the_last_class_of_a_task_and_several_at_once(copy, before):
    removal.remove_classes(copy, ["cat", "dog", 0])
    run = flcl.open_run(copy)
    assert run.sample(None, 3).classes == (1, 4, 5)
    np.testing.assert_array_equal(run.sample(None, 3).images, before[0][[1, 4, 5]])
    bank = jax.tree.map(np.asarray, run._memory(3)["bank"])
    assert [bool(flat(bank, k).any()) for k in range(6)] == [False, True, False, False, True, True]


def states_of(workdir: Path, folder: Path, remove) -> list[str]:
    """The name of every change on the disk in `remove`; the workdir before it is copied."""
    made, known = [], set()

    def before(owner, name):
        change = getattr(owner, name)

        def copied(*arguments, **named):
            state = frozenset(content(workdir).items())
            if state not in known:  # some changes change nothing
                known.add(state)
                shutil.copytree(workdir, folder / f"run_{len(made)}")
            made.append(name)
            return change(*arguments, **named)

        patch.setattr(owner, name, copied)

    # Not the fixture: it would compile all programs again, and no program is changed here.
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (removal.removed, "write"),
            (removal.Checkpoints, "save_task"),
            (Seals, "note"),
            (Seals, "forget_earlier"),
            (Path, "rename"),
            (shutil, "rmtree"),
        ):
            before(owner, name)
        remove()
    return made


def test_a_removal_that_is_killed_anywhere_ends_with_the_same_command(copy, before, data):
    folder = copy.parent / "killed"
    made = states_of(copy, folder, lambda: removal.remove_classes(copy, ["cat"]))
    assert {"rename", "rmtree", "save_task", "note", "write"} <= set(made)
    stopped = sorted(folder.iterdir())
    assert len(stopped) == 8
    for workdir in stopped:
        if (workdir / "removed.json").exists():
            for use in (flcl.open_run, lambda path: flcl.run(tiny.settings_of(data), path)):
                with pytest.raises(ValueError, match="the removal of a class was stopped; repeat"):
                    use(workdir)
        removal.remove_classes(workdir, ["cat"])
        check_gone(workdir, before, sampled=False)


def test_traces_are_found_at_any_place_and_only_where_they_are(tmp_path):
    rng = np.random.default_rng(0)
    factors, others = rng.normal(size=(2, 50)).astype(np.float32)
    data = factors.tobytes()
    noise = rng.bytes(10_000)
    cases = {
        "start": data[:16] + noise,
        "odd": noise[:4321] + data[40:56] + noise[4321:],
        "end": noise[:77] + data[-16:],
        "alone": data[16:32],
        "short": noise[:101] + data[40:55] + noise[300:400],
        "other": others.tobytes(),
        "empty": b"",
    }
    for name, value in cases.items():
        (tmp_path / name).write_bytes(value)
    found = [path.name for path in removal.traces(tmp_path, factors, others)]
    assert found == ["alone", "end", "odd", "start"]
    # What others hold too is no trace, and equal numbers are none.
    assert removal.traces(tmp_path, factors, factors) == []
    (tmp_path / "zeros").write_bytes(bytes(100))
    assert removal.traces(tmp_path, np.zeros(20, np.float32), others) == []


def test_an_exported_file_in_the_workdir_is_named_before_anything_changes(copy):
    run = flcl.open_run(copy)
    run.export_classes(["cat", "dog"], copy / "mine")
    files = content(copy)
    with pytest.raises(ValueError, match=r"mine/cat.safetensors: holds numbers of class 2 \(cat\)"):
        removal.remove_classes(copy, ["cat"])
    assert content(copy) | {Path(".lock"): b""} == files | {Path(".lock"): b""}


@pytest.mark.parametrize(
    ("classes", "why"),
    [([], "at least one is needed"), (["caat"], "Did you mean 'cat'")],
)
def test_what_cannot_be_removed(classes, why, copy):
    with pytest.raises(ValueError, match=why):
        removal.remove_classes(copy, classes)
    assert not (copy / "removed.json").exists()


def test_a_run_with_tasks_to_learn_is_finished_first(copy):
    shutil.rmtree(copy / "checkpoints" / "tasks" / "3")
    with pytest.raises(ValueError, match="has learned 2 of 3 tasks: finish the run first"):
        removal.remove_classes(copy, ["cat"])


def test_a_list_that_was_changed_or_taken_away_is_refused(copy):
    removal.remove_classes(copy, ["cat"])
    text = (copy / "removed.json").read_text()
    (copy / "removed.json").write_text(text.replace('"cat"', '"cot"'))
    with pytest.raises(ValueError, match="removed.json has changed since flcl wrote it"):
        flcl.open_run(copy)
    (copy / "removed.json").unlink()
    with pytest.raises(ValueError, match="removed.json is missing"):
        flcl.open_run(copy)
