import contextlib
import errno
import gc
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from flcl.report.writers import EVALUATION, MetricWriter, read_metrics


def records(workdir) -> list[tuple]:
    found = read_metrics(workdir / "metrics.jsonl")
    return [(r["task"], r["phase"], r["step"], r.get("loss", r.get("accuracy"))) for r in found]


def events(workdir) -> dict[str, list[tuple]]:
    """{"run tag": [(step, value)]} from the event files, read without TensorFlow."""
    found: dict[str, list] = {}
    for path in sorted((workdir / "tensorboard").rglob("events*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            # A record is its length (8 bytes), a checksum (4), the event, a checksum (4).
            size = int.from_bytes(data[position : position + 8], "little")
            event = Event.FromString(data[position + 12 : position + 12 + size])
            position += size + 16
            for value in event.summary.value:
                run = path.parent.name
                found.setdefault(f"{run} {value.tag}", []).append((event.step, value.simple_value))
    return found


def train(writer, task: int, steps) -> None:
    for step in steps:
        writer.write(task=task, step=step, phase=f"phase{min(task, 2)}", loss=step / 8)


def test_a_record_is_on_disk_at_once_and_strict_json(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(task=1, step=5, phase="phase1", loss=np.float32(0.5), norm=float("nan"))
    line = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(line, parse_constant=pytest.fail)
    assert list(record) == ["step", "task", "phase", "loss", "norm", "time"]
    assert record["loss"] == 0.5 and record["norm"] is None and record["time"] > 1e9
    writer.close()


def test_other_processes_write_nothing(tmp_path):
    with MetricWriter(tmp_path, enabled=False) as writer:
        writer.rewind(1, 0)
        train(writer, 1, [1])
    assert list(tmp_path.iterdir()) == []


def test_no_step_appears_twice_after_a_resume(tmp_path):
    with MetricWriter(tmp_path) as writer:
        train(writer, 1, [10, 20, 30])
        writer.write(task=1, step=30, phase=EVALUATION, accuracy=0.9)
        train(writer, 2, [10, 20, 30])
        writer.write(task=2, step=30, phase=EVALUATION, accuracy=0.8)
    # Killed; the last state on disk is the one after 20 steps of task 2.
    with MetricWriter(tmp_path) as writer:
        writer.rewind(2, 20)
        train(writer, 2, [30])
        writer.write(task=2, step=30, phase=EVALUATION, accuracy=0.7)
    wanted = [
        (1, "phase1", 10, 1.25),
        (1, "phase1", 20, 2.5),
        (1, "phase1", 30, 3.75),
        (1, EVALUATION, 30, 0.9),
        (2, "phase2", 10, 1.25),
        (2, "phase2", 20, 2.5),
        (2, "phase2", 30, 3.75),
        (2, EVALUATION, 30, 0.7),
    ]
    assert records(tmp_path) == wanted


def test_only_the_evaluation_of_a_task_is_repeated(tmp_path):
    with MetricWriter(tmp_path) as writer:
        train(writer, 1, [10, 20])
        writer.write(task=1, step=20, phase=EVALUATION, accuracy=0.9)
        writer.rewind(1, None)
        writer.write(task=1, step=20, phase=EVALUATION, accuracy=0.5)
    assert [r[1:] for r in records(tmp_path)] == [
        ("phase1", 10, 1.25),
        ("phase1", 20, 2.5),
        (EVALUATION, 20, 0.5),
    ]


def test_a_stored_task_that_is_evaluated_again_keeps_its_place(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for task in (1, 2, 3):
            train(writer, task, [10, 20])
            writer.write(task=task, step=20, phase=EVALUATION, accuracy=0.9)
    before = records(tmp_path)
    with MetricWriter(tmp_path) as writer:
        for task in (1, 2, 3):
            writer.rewind(task, None)
            writer.write(task=task, step=20, phase=EVALUATION, accuracy=0.9)
    assert records(tmp_path) == before


def test_rewind_to_the_start_of_a_task_and_of_the_run(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        train(writer, 1, [10])
        train(writer, 2, [10])
        writer.rewind(2, 0)
        assert [r[0] for r in records(tmp_path)] == [1]
        writer.rewind(1, 0)
        assert records(tmp_path) == []
        train(writer, 1, [10])
    assert [r[0] for r in records(tmp_path)] == [1]


@pytest.mark.parametrize("torn", ['{"step": 3', '{"step": 3, "task": 1}', "\x00\x00"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        train(writer, 1, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + torn)
    assert [r[2] for r in records(tmp_path)] == [1, 2]
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        train(writer, 1, [3])
    assert [r[2] for r in records(tmp_path)] == [1, 2, 3]


GOOD = '{"step": 1, "task": 1, "phase": "phase1", "loss": 0.5, "time": 1.5}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is no record of a run"),
        ('{"step": 2}', "is no record of a run"),
        (GOOD.replace("0.5", "NaN"), "is no record of a run"),
        (GOOD.replace("0.5", '"low"'), "is no record of a run"),
        (GOOD.replace("0.5", "1e999"), "is no record of a run"),
        (GOOD.replace('"task": 1', '"task": true'), "is no record of a run"),
        (GOOD.replace('"phase1"', "1"), "is no record of a run"),
    ],
)
def test_a_bad_line_inside_is_named(tmp_path, line, message):
    (tmp_path / "metrics.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=f"metrics.jsonl line 2 {message}: delete that line"):
        MetricWriter(tmp_path)


def test_files_and_threads_do_not_grow_with_the_tasks(tmp_path):
    def in_use() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with MetricWriter(tmp_path) as writer:
        for task in range(1, 31):
            train(writer, task, [1, 2])
            writer.rewind(task, None)
            writer.write(task=task, step=2, phase=EVALUATION, accuracy=task / 30)
            if task == 2:
                two = in_use()
        assert in_use() == two
    assert len(events(tmp_path)) == 31
    assert events(tmp_path)["evaluation evaluation/accuracy"][-1] == (30, 1.0)


@pytest.mark.parametrize("full", ["metrics.jsonl", "tensorboard"])
def test_a_full_disk_names_the_file(tmp_path, full, capsys):
    writer = MetricWriter(tmp_path)
    train(writer, 1, [1])
    if full == "tensorboard":
        file = next((tmp_path / "tensorboard" / "task_01").iterdir())
        full_disk = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full_disk, _open_at(file))
        os.close(full_disk)
    else:
        (tmp_path / full).unlink()
        (tmp_path / full).symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '.*{full}") as raised:
        train(writer, 1, [2])
        writer.close()
    assert raised.value.errno == errno.ENOSPC
    del writer  # as at the end of the process
    gc.collect()
    assert capsys.readouterr() == ("", "")


def _open_at(path: Path) -> int:
    """The descriptor of an open file of this process."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.resolve() == path.resolve():
                return int(entry.name)
    raise AssertionError(path)


def test_reserved_names_are_refused(tmp_path):
    with (
        MetricWriter(tmp_path, tensorboard=False) as writer,
        pytest.raises(ValueError, match="'time' is taken"),
    ):
        writer.write(task=1, step=1, phase="phase1", **{"time": 3.0})


def test_events_hold_what_the_lines_hold_also_after_a_resume(tmp_path):
    writer = MetricWriter(tmp_path)
    train(writer, 1, [10, 20])
    writer.write(task=1, step=20, phase=EVALUATION, accuracy=0.5)
    train(writer, 2, [10, 20])
    # Killed: what was not flushed is lost. The next process continues task 2 at step 10.
    with MetricWriter(tmp_path) as resumed:
        resumed.rewind(2, 10)
        resumed.write(task=2, step=20, phase="phase2", loss=8.0, odd=float("inf"))
    writer.close()
    wanted = {
        "task_01 train/loss": [(10, 1.25), (20, 2.5)],
        "task_02 train/loss": [(10, 1.25), (20, 8.0)],
        "evaluation evaluation/accuracy": [(1, 0.5)],
    }
    assert events(tmp_path) == wanted


def test_opening_a_finished_run_touches_no_events(tmp_path):
    with MetricWriter(tmp_path) as writer:
        train(writer, 1, [10])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    MetricWriter(tmp_path).close()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
