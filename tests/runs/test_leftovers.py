"""Files that a run left and that are damaged or replaced: made again, or refused in one line."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

import flcl
from flcl.report import kept
from flcl.runs.opened import run as opened
from flcl.runs.saved import stored
from flcl.settings import formats
from flcl.storage import npz
from flcl.storage.seals import NAME as DIGESTS
from flcl.storage.seals import Seals, digest


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed(path: Path, change) -> None:
    """Writes a JSON file again with a changed value."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# What can be made again.


def test_every_file_is_made_again_by_the_same_command(copy, finished, data, capsys):
    (copy / "config.json").write_text("[1, 2]")
    changed(copy / "stream.json", lambda values: values["train_images"].reverse())
    changed(copy / "stream.json", lambda values: values["test_images"].__setitem__(0, 3))
    (copy / "timing.json").write_text('{"tasks": {"one": 1}}')
    (copy / "samples" / "task_01.npz").unlink()
    shutil.copy(copy / "samples" / "task_03.npz", copy / "samples" / "task_02.npz")
    (copy / "samples" / "task_03.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (copy / "samples" / "task_07.npz").write_bytes(b"stray")
    (copy / "samples" / "over_tasks.png").write_bytes(b"")
    (copy / "plots" / "matrix.png").write_bytes(b"")
    (copy / "report.html").write_bytes(b"\0")

    flcl.run(tiny.settings_of(data), copy)
    said = capsys.readouterr().out
    assert "config.json is damaged; now it is written again" in said
    assert "stream.json has changed since the run wrote it; now it is written again" in said
    assert "timing.json: tasks.one is an integer, an object is needed; it is started again" in said
    for task in (1, 2, 3):
        assert f"pictures of task {task} are missing or damaged: made again" in said
    names = ["config.json", "stream.json", "results.json", "metrics.jsonl", "plots/matrix.png"]
    names += [f"samples/task_{t:02d}.{kind}" for t in (1, 2, 3) for kind in ("npz", "png")]
    for name in [*names, "samples/over_tasks.png"]:
        assert (copy / name).read_bytes() == (finished / name).read_bytes(), name
    assert (copy / "report.html").read_text().count("<img") > 5
    assert json.loads((copy / "timing.json").read_text())["tasks"] == {}


def test_results_are_made_again_if_they_are_not_those_of_the_run(copy, finished, data, capsys):
    changed(copy / "results.json", lambda values: values["rows"][1].update(accuracy=[0.25, 0.5]))
    flcl.run(tiny.settings_of(data), copy)
    said = capsys.readouterr().out
    assert "results.json has changed since the run wrote it; the 3 stored tasks are eval" in said
    for name in ("results.json", "samples/task_02.npz"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()
    # The records of training are not lost, although earlier tasks were evaluated after it.
    records = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert sum(record["phase"].startswith("phase") for record in records) == 9
    assert [record["task"] for record in records if record["phase"] == "evaluation"] == [1, 2, 3]


def test_other_pixels_of_trained_tasks_are_told(copy, data, tmp_path, capsys):
    """Names and numbers of the images are the same, so the run goes on."""
    before = (copy / "results.json").read_bytes()
    flcl.run(tiny.settings_of(data), copy)
    assert "other pixels" not in capsys.readouterr().out
    with np.load(data) as arrays:
        arrays = dict(arrays)
    arrays["train_images"][np.flatnonzero(arrays["train_labels"] == 3)[5], 0, 0] ^= 1  # task 2
    np.savez(tmp_path / "other.npz", **arrays)
    flcl.run(tiny.settings_of(tmp_path / "other.npz"), copy)
    assert "the images of task 2 have other pixels now than when it was" in capsys.readouterr().out
    assert (copy / "results.json").read_bytes() == before


def test_a_deleted_config_does_not_let_another_config_in(copy, data):
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing, and .* another config"):
        flcl.run(tiny.settings_of(data, phase2__steps=7), copy)
    assert not (copy / "config.json").exists()


# What cannot be made again.


def stray_task(copy: Path) -> None:
    shutil.copytree(copy / "checkpoints" / "tasks" / "3", copy / "checkpoints" / "tasks" / "4")


def stray_task_after_a_gap(copy: Path) -> None:
    shutil.copytree(copy / "checkpoints" / "tasks" / "3", copy / "checkpoints" / "tasks" / "7")
    (copy / "checkpoints" / "tasks" / "7" / "_CHECKPOINT_METADATA").unlink()


def changed_digest(copy: Path) -> None:
    """One character of the digest of the last task."""
    seals = copy / "digests.json"
    digests = json.loads(seals.read_text())
    name = next(name for name in digests if name.endswith("tasks/3"))
    digests[name] = [value[:-1] + ("0" if value[-1] != "0" else "1") for value in digests[name]]
    seals.write_text(json.dumps(digests))


def task_of_another_run(copy: Path) -> None:
    """Good in itself: the third task in the place of the second."""
    shutil.rmtree(copy / "checkpoints" / "tasks" / "2")
    shutil.copytree(copy / "checkpoints" / "tasks" / "3", copy / "checkpoints" / "tasks" / "2")


def linked_folder(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints" / "running")
    (copy / "checkpoints" / "running").symlink_to(copy.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (stray_task, r"checkpoints/tasks/4 does not belong to this run of 3 tasks: move it away"),
        (stray_task_after_a_gap, r"checkpoints/tasks/7 does not belong to this run of 3 tasks"),
        (changed_digest, r"checkpoints/tasks/3 is not the one .* or its digest in .*digests.json"),
        (task_of_another_run, r"checkpoints/tasks/2 is not the one that this run wrote"),
        (linked_folder, r"checkpoints/running is a symbolic link that leads out of the workdir"),
    ],
)
def test_foreign_saves_are_refused_by_a_run_and_by_a_reader(copy, data, damage, message):
    damage(copy)
    before = sorted(copy.parent.iterdir())
    for use in (
        lambda: flcl.open_run(copy).sample([0], 1),
        lambda: flcl.run(tiny.settings_of(data), copy),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert sorted(copy.parent.iterdir()) == before


# A reader of a run from somebody else.


def test_the_compile_cache_of_a_foreign_run_is_not_used(copy, monkeypatch):
    changed(copy / "config.json", lambda values: values["runtime"].update(compile_cache="/evil"))
    used = []
    monkeypatch.setattr(opened, "use_compile_cache", used.append)
    flcl.open_run(copy)
    assert [runtime.compile_cache for runtime in used] == [""]


def test_data_may_have_moved(copy):
    def move(values):
        values["data"]["source"] = "npz:elsewhere.npz"

    changed(copy / "config.json", move)
    assert flcl.open_run(copy).settings.data.source == "npz:elsewhere.npz"


BYTES = {
    "empty": b"",
    "zeros": b"\0" * 50,
    "list": b"[1, 2]",
    "null": b"null",
    "number": b"7",
    "text": b'"text"',
    "NaN": b"NaN",
    "another object": b'{"a": {"b": []}}',
    "deep": b"[" * 100_000,
    "no UTF-8": b'{"\xff": 1}',
}


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("name", ["config.json", "stream.json"])
def test_a_reader_names_a_file_of_another_type(copy, name, content):
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{copy / name}") as caught:
        flcl.open_run(copy)
    assert "\n" not in str(caught.value) and "repeat the command" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda v: v.update(data=[]), r"config.json: data is \[\], a group of keys"),
        ("config.json", lambda v: v.update(phase1=3), "config.json: phase1 is 3, a group of keys"),
        ("config.json", lambda v: v.update(seed="x"), r"config.json: seed='x': int is needed"),
        ("config.json", lambda v: v.update(seed={}), "config.json: .*seed"),
        ("config.json", lambda v: v.update(method=[]), "config.json has no settings of a run"),
        ("config.json", lambda v: v.update(method="x"), "config.json: method='x': accepted are"),
        ("config.json", lambda v: v["sample"].update(num_steps=3), "config.json has changed since"),
        (
            "config.json",
            lambda v: v["adapter"].update(layers="top:2@/somewhere"),
            "config.json has changed since",
        ),
        ("stream.json", lambda v: v.update(stream=[]), "stream.json: stream is a list, an object"),
        (
            "stream.json",
            lambda v: v["stream"].update(class_order=[0, 1, 2, 3, 4, 4]),
            "stream.json: stream.class_order is no order of the 6 names",
        ),
        (
            "stream.json",
            lambda v: v["stream"].update(class_order=[0.5]),
            r"stream.json: stream.class_order\[0\] is a number, an integer is needed",
        ),
        ("stream.json", lambda v: v["stream"].update(sizes=[2, 2]), r"stream.sizes \[2, 2\] .* do"),
        ("stream.json", lambda v: v["stream"].update(capacity=0), "capacity 0 do not fit its 6"),
        ("stream.json", lambda v: v["class_names"].reverse(), r"tasks\[0\] does not fit the 2"),
        ("stream.json", lambda v: v.update(other=1), "stream.json has changed since"),
    ],
)
def test_a_reader_names_a_wrong_value(copy, name, change, message):
    changed(copy / name, change)
    with pytest.raises(ValueError, match=message) as caught:
        flcl.open_run(copy)
    assert "\n" not in str(caught.value)


def test_a_foreign_config_leads_to_no_other_folder(copy):
    changed(copy / "config.json", lambda v: v["adapter"].update(layers="top:2@/somewhere"))
    (copy / DIGESTS).unlink()
    with pytest.raises(ValueError, match=r"config.json: adapter.layers='top:2@/somewhere'"):
        flcl.open_run(copy)


def test_a_pipe_is_refused_and_not_opened(copy, data):
    (copy / "results.json").unlink()
    os.mkfifo(copy / "results.json")
    for use in (lambda: flcl.open_run(copy), lambda: flcl.run(tiny.settings_of(data), copy)):
        with pytest.raises(ValueError, match="results.json is neither a file nor a folder"):
            use()


# The readers alone, also without digests.


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
def test_a_damaged_results_file_is_named_and_not_used(copy, content):
    (copy / "results.json").write_bytes(content)
    (copy / DIGESTS).unlink()
    values, line = stored.earlier_results(copy, Seals(copy))
    assert values is None and "results.json" in line and "\n" not in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "the file is a list, an object is needed"),
        (b'{"tasks": []}', "tasks is a list, an object is needed"),
        (b'{"tasks": {"1": 3}}', "tasks.1 is an integer, an object is needed"),
        (b'{"tasks": {"1": {"seconds": NaN}}}', "tasks.1.seconds is not a finite number"),
        (b'{"tasks": {"\\u0661": {}}}', "is not the number of a task"),
        (b'{"device": 3}', "device is an integer, a string is needed"),
    ],
)
def test_a_wrong_time_is_named(tmp_path, content, message):
    (tmp_path / "timing.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"timing.json: .*{message}"):
        stored.read_timing(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((2, 3, 8, 8, 1), np.uint8), "labels": np.array([0, 6])},
        {"images": np.zeros((2, 3, 8, 8, 1), np.uint8), "labels": np.array([-1, 1])},
        {"images": np.zeros((2, 3, 8, 8, 1), np.uint8), "labels": np.array([1])},
        {"images": np.zeros((2, 3, 8, 8, 2), np.uint8), "labels": np.array([0, 1])},
        {"images": np.zeros((2, 3, 8, 8, 1), np.uint16), "labels": np.array([0, 1])},
        {"images": np.zeros((2, 0, 8, 8, 1), np.uint8), "labels": np.array([0, 1])},
        {"images": np.zeros((2, 3, 8, 8), np.uint8), "labels": np.array([0, 1])},
        {"labels": np.array([0, 1])},
    ],
)
def test_samples_of_another_shape_are_refused(tmp_path, arrays):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "task_01.npz").write_bytes(npz.to_bytes(arrays))
    with pytest.raises(ValueError, match=r"samples/task_01.npz"):
        kept.read_samples(tmp_path, 1, 6)


def test_a_config_keeps_its_digest_where_only_places_and_titles_differ(data):
    values = formats.to_store(tiny.settings_of(data))
    same = formats.to_store(
        tiny.settings_of(data, name="other", data__source="x", runtime__compile_cache="off")
    )
    other = formats.to_store(tiny.settings_of(data, sample__num_steps=3))
    assert formats.identity(values) == formats.identity(same) != formats.identity(other)
    assert formats.identity(json.loads(json.dumps(values))) == formats.identity(values)
    assert len(digest(b"")) == 64
