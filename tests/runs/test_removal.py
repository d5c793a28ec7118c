"""A class that is removed leaves no byte and moves no other, wherever the work is stopped."""

import datetime
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import flcl
from flcl.runs import removal
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
    found = removal.traces(copy, flat(bank, 2), np.concatenate([flat(bank, k) for k in (0, 1, 3)]))
    assert found and all("checkpoints/tasks/2/" in str(path) for path in found)
    (gone,) = removal.remove_classes(copy, ["cat"])
    assert (gone.name, gone.task, gone.when) == ("cat", 2, TODAY)
    check_gone(copy, before)
    for task, files in others.items():
        assert content(copy / "checkpoints" / "tasks" / task) == files
    run = flcl.open_run(copy)
    assert [entry.removed for entry in run.classes()] == [None, None, TODAY, None, None, None]
    for ask in (lambda: run.sample(["cat"]), lambda: run.export_classes([2], copy), run.evaluate):
        with pytest.raises(ValueError, match=rf"class 2 \(cat\) was removed on {TODAY}"):
            ask()
    assert len(run.export_classes(None, copy.parent / "out")) == 5
    with pytest.raises(ValueError, match="was removed on"):
        removal.remove_classes(copy, [2])


def test_the_command_that_trained_the_run_brings_nothing_back(copy, before, data):
    removal.remove_classes(copy, ["cat"])
    flcl.run(tiny.settings_of(data), copy)
    check_gone(copy, before)


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


class KilledError(BaseException):
    """A process that ends at once."""


def kill_at(monkeypatch, moment: int) -> list:
    """The process ends before the given change on the disk; returns the names of all so far."""
    made = []

    def before(owner, name):
        change = getattr(owner, name)

        def counted(*arguments, **named):
            made.append(name)
            if len(made) == moment:
                raise KilledError
            return change(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in (
        (removal.removed, "write"),
        (removal.Checkpoints, "save_task"),
        (Seals, "note"),
        (Seals, "forget_earlier"),
        (Path, "rename"),
        (shutil, "rmtree"),
    ):
        before(owner, name)
    return made


def test_a_removal_that_is_killed_anywhere_ends_with_the_same_command(copy, before, monkeypatch):
    moment, whole = 1, False
    while not whole:
        workdir = Path(shutil.copytree(copy, copy.parent / f"run_{moment}"))
        with monkeypatch.context() as patch:
            made = kill_at(patch, moment)
            try:
                removal.remove_classes(workdir, ["cat"])
                whole = True
            except KilledError:
                pass
        if not whole and (workdir / "removed.json").exists():
            with pytest.raises(ValueError, match="the removal of a class was stopped; repeat"):
                flcl.open_run(workdir)
        if not whole:
            removal.remove_classes(workdir, ["cat"])
        check_gone(workdir, before, sampled=False)
        shutil.rmtree(workdir)
        moment += 1
    assert moment > 8 and {"rename", "rmtree", "save_task", "note", "write"} <= set(made)


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
    with pytest.raises(ValueError, match=r"mine/cat.safetensors: holds factors of class 2 \(cat\)"):
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
