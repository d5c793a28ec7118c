"""A whole task sequence: what it proves, what it leaves behind, what it refuses."""

import fcntl
import gc
import hashlib
import itertools
import json
import shutil
import types

import jax
import numpy as np
import pytest
import tiny

import flcl
from flcl.methods.funlora import FunLoRA
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.record import Record
from flcl.runs.results import GeneratorResults, from_json, to_json
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import prepare


def memories(workdir, data):
    """The memory after each task of a finished run."""
    setup = prepare(tiny.settings_of(data))[0]
    memory, found = empty_memory(setup), []
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        for task in setup.data.stream.tasks:
            memory = restore_task(setup, checkpoints, memory, task)
            found.append(jax.tree.map(np.asarray, memory))
    return found


def test_the_trunk_and_every_old_class_keep_their_bits(finished, data):
    after = memories(finished, data)
    for task in (1, 2):
        jax.tree.map(np.testing.assert_array_equal, after[0]["trunk"], after[task]["trunk"])
        for old, new in zip(
            jax.tree.leaves(after[task - 1]["bank"]),
            jax.tree.leaves(after[task]["bank"]),
            strict=True,
        ):
            np.testing.assert_array_equal(old[: 2 * task], new[: 2 * task])
            assert np.abs(new[2 * task : 2 * task + 2]).max() > 0


def test_results_say_which_images_each_task_had(finished, data):
    with np.load(data) as arrays:
        arrays = dict(arrays)
    for task, diagnosis in enumerate(flcl.open_run(finished).results.diagnosis):
        total = 0
        for half, label in itertools.product(("train", "test"), (2 * task, 2 * task + 1)):
            name = f"{half} {arrays['class_names'][label]} (8, 8, 1)".encode()
            for image in arrays[f"{half}_images"][arrays[f"{half}_labels"] == label]:
                total += int(hashlib.sha256(name + image.tobytes()).hexdigest(), 16)
        assert diagnosis.images == f"{total % 2**256:064x}"


def test_training_moves_what_it_should(finished, data):
    setup = prepare(tiny.settings_of(data))[0]
    start = empty_memory(setup)["trunk"]
    trained = memories(finished, data)[0]["trunk"]
    assert any(
        np.abs(np.asarray(a) - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(trained), strict=True)
    )


def test_old_classes_are_sampled_with_the_same_bits_after_later_tasks(finished):
    run = flcl.open_run(finished)
    own = run.sample([0, 1], 5, task=1)
    last = run.sample([0, 1], 5, task=3)
    np.testing.assert_array_equal(own.images, last.images)
    assert own.images.std() > 0


def test_one_trace_per_phase_however_many_tasks(data, tmp_path, monkeypatch):
    traced, real = [], FunLoRA.loss

    def counted(self, phase, *args):
        traced.append(phase)
        return real(self, phase, *args)

    monkeypatch.setattr(FunLoRA, "loss", counted)
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    run = tiny.settings_of(data, stream__tasks="2,1,1,2")  # tasks of unequal size share a step too
    flcl.run(run, tmp_path / "run")
    assert traced == [1, 2]
    # The same run again in this process: the same programs, and no parameters of the first.
    flcl.run(run, tmp_path / "again")
    assert traced == [1, 2]
    gc.collect()
    assert sum(array.nbytes for array in jax.live_arrays()) < before + 20_000
    first, again = (tmp_path / name / "results.json" for name in ("run", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_what_a_run_leaves_behind(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json", "stream.json", "metrics.jsonl", "results.json", "timing.json", "samples",
        "checkpoints", "report.html", "tensorboard", "plots",
    }  # fmt: skip
    assert {p.name for p in (finished / "checkpoints" / "tasks").iterdir()} == {"1", "2", "3"}
    assert not list((finished / "checkpoints" / "running").glob("[0-9]*"))
    assert {p.name for p in (finished / "samples").glob("task_*.png")} == {
        "task_01.png", "task_02.png", "task_03.png",
    }  # fmt: skip


def test_results(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["complete"] is True
    assert [sum(v is not None for v in row) for row in results["matrix"]] == [1, 2, 3]
    assert len(results["ceiling"]) == 3 and results["test_counts"] == [16, 16, 16]
    assert results["sampling"]["function_evaluations"] == 2
    assert results["sampling"]["images_per_class"] == [8] * 6
    assert results["class_names"] == ["ant", "bee", "cat", "dog", "eel", "fox"]
    assert len(results["importance"]) == len(results["parameters"]["adapted_convolutions"])
    assert max(entry["score"] for entry in results["importance"]) == 1.0
    assert set(results["fidelity"]["per_class"]) == set(results["class_names"])
    quality = results["quality"]
    assert len(quality["per_task"]) == 3 and set(quality["per_class"]) == set(
        results["class_names"]
    )
    every = quality["all"]
    assert (every["generated"], every["real"], every["compared"]) == (48, 48, 48)
    assert every["fd"] > 0 and every["kd_error"] > 0 and 0 <= every["recall"] <= 1
    # Classes and judge are fixed, so what was measured of a group stays as it is.
    first = [row["quality"]["per_task"][0] for row in results["rows"]]
    assert first[0] == first[1] == first[2]
    # Later tasks store their factors only.
    timing = json.loads((finished / "timing.json").read_text())["tasks"]
    sizes = [timing[str(task)]["bytes_on_disk"] for task in (1, 2, 3)]
    assert results["parameters"]["bytes_per_task"][1] < results["parameters"]["bytes_per_task"][0]
    assert sizes[1] < sizes[0] / 2


def test_results_follow_their_schema_byte_for_byte(finished):
    text = (finished / "results.json").read_text()
    typed = from_json(json.loads(text))
    assert isinstance(typed, GeneratorResults)
    assert json.dumps(to_json(typed), indent=2, sort_keys=True) + "\n" == text


def test_results_of_another_run_are_not_taken_over(finished, data):
    """Also without digests, as in a run of an older version."""
    setup = prepare(tiny.settings_of(data))[0]
    loaded = []
    evaluation = types.SimpleNamespace(
        load=loaded.append, sections=lambda rows, _: {"kind": "generator"}
    )
    results = json.loads((finished / "results.json").read_text())

    def load(change=lambda values: None, tasks: int = 3) -> int:
        stored = json.loads(json.dumps(results))
        change(stored)
        record = Record(setup, evaluation)
        try:
            record.load(stored, tasks)
        finally:
            assert len(record.rows) == len(record.diagnosis)
        return len(record.rows)

    assert load() == 3 and load(tasks=2) == 2
    assert load(lambda values: values.update(parameters={}, versions={})) == 3
    for change, name in (
        (lambda values: values.update(seed=1), "seed"),
        (lambda values: values["class_names"].reverse(), "class_names"),
        (lambda values: values["matrix"][1].reverse(), "matrix"),
        (lambda values: values["rows"][1]["accuracy"].append(0.5), "rows"),
        (lambda values: values["rows"][1]["accuracy"].extend([0.5] * 9), "rows"),
        (lambda values: values["rows"][2].update(accuracy=[0.5]), "rows"),
        (lambda values: values["diagnosis"].pop(), "diagnosis"),
        (lambda values: values.update(test_counts=[16, 16, 17]), "test_counts"),
    ):
        with pytest.raises(ValueError, match=rf"results of this run \({name} differs\)"):
            load(change)
    assert len(loaded) == 3


def test_steps_are_logged_once_each(finished):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [(r["task"], r["step"]) for r in records if r["phase"].startswith("phase")]
    assert steps == [(task, step) for task in (1, 2, 3) for step in (2, 4, 6)]


def test_a_complete_run_is_only_read(finished, data):
    before = (finished / "results.json").read_bytes()
    stamp = (finished / "checkpoints" / "tasks" / "1").stat().st_mtime_ns
    flcl.run(tiny.settings_of(data), finished)
    assert (finished / "results.json").read_bytes() == before
    assert (finished / "checkpoints" / "tasks" / "1").stat().st_mtime_ns == stamp


def test_joint_training_has_one_row_over_all_groups(data, tmp_path):
    run = tiny.settings_of(data, stream__joint=True)
    results = flcl.run(run, tmp_path / "run")
    assert results["complete"] and len(results["matrix"]) == 1
    assert None not in results["matrix"][0] and len(results["matrix"][0]) == 3


def test_unprotected_methods_move_everything(data, tmp_path):
    """Replay is fine-tuning on more images."""
    flcl.run(tiny.settings_of(data, "generative_replay"), tmp_path / "run")
    run = flcl.open_run(tmp_path / "run")
    own, last = (run.sample([0, 1], 4, task=t) for t in (1, 3))
    assert not np.array_equal(own.images, last.images)


def test_replay_trains_on_samples_of_every_old_class(data):
    setup = prepare(tiny.settings_of(data, "generative_replay"))[0]
    asked = []

    def generate(memory, label, count):
        asked.append((label, count))
        return np.zeros((count, 8, 8, 1), np.uint8)

    task = setup.data.stream.tasks[2]
    images = setup.method.training_images(task, setup.data.train(task), None, generate)
    assert sorted(images) == list(range(6))
    assert asked == [(label, 24) for label in range(4)]


def test_another_class_order_trains_other_classes_first(data, tmp_path):
    run = tiny.settings_of(data, stream__class_order="5,4,3,2,1,0", phase2__steps=2)
    results = flcl.run(run, tmp_path / "run")
    assert results["class_names"][:2] == ["fox", "eel"]
    opened = flcl.open_run(tmp_path / "run")
    assert opened.sample(["fox"], 1, task=1).classes == (5,)
    with pytest.raises(ValueError, match=r"class 0 \(ant\) is not learned after task 1"):
        opened.sample([0], 1, task=1)


def test_a_workdir_of_another_config_is_refused_with_the_keys(finished, data, tmp_path):
    before = (finished / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"another config \(phase2.steps: 6 -> 7\)"):
        flcl.run(tiny.settings_of(data, phase2__steps=7), finished)
    with pytest.raises(ValueError, match=r"another config \(method: 'funlora' -> 'finetune'\)"):
        flcl.run(tiny.settings_of(data, "finetune"), finished)
    assert (finished / "config.json").read_bytes() == before
    copy = shutil.copytree(finished, tmp_path / "run")
    flcl.run(tiny.settings_of(data, runtime__log_every=3), copy)  # changes no result


def test_figures_are_not_taken_over_without_their_tasks(finished):
    """Whoever deletes the checkpoints starts anew, perhaps with other settings."""
    stored = json.loads((finished / "results.json").read_text())
    taken = []
    record = Record(None, types.SimpleNamespace(load=taken.append))
    record.load(stored, 0)
    assert not record.rows and not taken


def test_a_workdir_whose_data_changed_is_refused(finished, data, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    more = tiny.write_data(tmp_path / "more.npz", per_class=25)
    shutil.copy(data, tmp_path / "before.npz")
    try:
        shutil.copy(more, data)
        with pytest.raises(ValueError, match=r"other data or tasks \(train_images of"):
            flcl.run(tiny.settings_of(data), copy)
        (copy / "stream.json").unlink()
        with pytest.raises(ValueError, match=r"stream.json is missing, and .* on other data"):
            flcl.run(tiny.settings_of(data), copy)
    finally:
        shutil.copy(tmp_path / "before.npz", data)


def test_a_workdir_in_use_is_refused(data, tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="in use by process 4711"):
            flcl.run(tiny.settings_of(data), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_workdir_that_cannot_be_made_is_refused(data, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "odd" / ".lock").mkdir(parents=True)
    for name, reason in {
        "file/run": "Not a directory",
        "file": "File exists",
        "odd": f"{tmp_path}/odd/.lock: Is a directory",
    }.items():
        with pytest.raises(ValueError, match=rf"/{name} is not writable \({reason}\)"):
            flcl.run(tiny.settings_of(data), tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase1__batch_size": 12}, r"phase1.batch_size=12: must be a multiple of 8"),
        ({"stream__class_order": "0,1,2,3,4,4"}, "class_order"),
        ({"adapter__layers": "3-99"}, "adapter.layers"),
        ({"runtime__fsdp": 3}, "runtime.fsdp=3"),
        ({"judge__batch_size": 10}, "judge.batch_size=10"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        flcl.run(tiny.settings_of(data, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_task_checkpoint_is_named(finished, tmp_path, data):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "checkpoints" / "tasks" / "2")
    with pytest.raises(ValueError, match=r"tasks/2 is missing; the last good one is .*tasks/1"):
        flcl.run(tiny.settings_of(data), copy)


def test_results_of_deleted_tasks_are_made_again(finished, tmp_path, data):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "checkpoints" / "tasks" / "3")
    results = json.loads((copy / "results.json").read_text())
    results["rows"][2]["accuracy"] = [0.0] * 3
    (copy / "results.json").write_text(json.dumps(results))
    flcl.run(tiny.settings_of(data), copy)
    assert (copy / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_layers_taken_from_another_run_are_stored_as_a_list(finished, tmp_path, data):
    run = tiny.settings_of(data, adapter__layers=f"top:4@{finished}", stream__tasks="6")
    setup = prepare(run)[0]
    layers = setup.run.adapter.layers
    assert len(layers.split(",")) == len(setup.method.adapted) == 4
    again = tiny.settings_of(data, adapter__layers=layers, stream__tasks="6")
    assert prepare(again)[0].method.adapted == setup.method.adapted


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_task_checkpoint_is_named(finished, tmp_path, data, damage):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    arrays = (copy / "checkpoints" / "tasks" / "3" / "state" / "d").iterdir()
    largest = max(arrays, key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0xFF
    largest.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"tasks/3 .*the last good one is .*tasks/2"):
        flcl.run(tiny.settings_of(data), copy)
