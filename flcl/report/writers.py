"""Metrics of a run: one JSON line per record, and the same values as TensorBoard events.

`metrics.jsonl` is the reference. A resumed run makes the event files from it again, because a
killed process loses the events that were not flushed, and events cannot be removed.
"""

import contextlib
import json
import math
import os
import shutil
import socket
import sys
import time
import weakref
from pathlib import Path

from flcl import files

EVALUATION = "evaluation"
"""The phase of records from the evaluation of a task; all other phases are training."""

_FIELDS = ("task", "step", "phase", "time")
_FLUSH_SECONDS = 30.0


class MetricWriter:
    """Appends records to `workdir/metrics.jsonl` and `workdir/tensorboard/`.

    workdir:     folder of the run.
    enabled:     False (in all processes but the first) = every call does nothing.
    tensorboard: False = only JSON lines.

    TensorBoard shows one curve per task over its steps (runs `task_01`, ...), and the run
    `evaluation` over tasks. If a killed process left an incomplete last line, it is dropped; raises
    `ValueError` if any other line is not JSON.
    """

    def __init__(self, workdir: str | Path, *, enabled: bool = True, tensorboard: bool = True):
        self._path = Path(workdir) / "metrics.jsonl"
        self._events = _Events(Path(workdir) / "tensorboard") if tensorboard else None
        self._enabled = enabled
        if enabled:
            self._start(read_metrics(self._path))

    def write(self, *, task: int, step: int, phase: str, **scalars: float) -> None:
        """Writes one record to disk.

        task: number from 1. step: finished steps of the task. phase: "phase1", "phase2" or
        `EVALUATION`. scalars: values that `float` accepts; null is stored for non-finite values.
        """
        if not self._enabled:
            return
        if clash := set(scalars) & set(_FIELDS):
            raise ValueError(f"metric name {sorted(clash)[0]!r} is taken: choose another name")
        values = {name: _finite(value) for name, value in scalars.items()}
        record = {"step": int(step), "task": int(task), "phase": phase, **values}
        record["time"] = round(time.time(), 3)
        if _place(record) < self._last:  # a stored task is evaluated again
            files.write(self._path, _text(sorted([*read_metrics(self._path), record], key=_place)))
        else:
            self._last = _place(record)
            with files.writing(self._path), self._path.open("a") as file:
                file.write(_text([record]))
        if self._events:
            self._events.add(record)

    def rewind(self, task: int, step: int | None) -> None:
        """Deletes the records that a resumed run will write again, so no step appears twice.

        It keeps the records of earlier tasks and those of the training of `task` up to `step`
        finished steps; None = all training, if only the evaluation of `task` is repeated.
        """
        if not self._enabled:
            return
        records = read_metrics(self._path)
        kept = [record for record in records if _is_before(record, task, step)]
        if len(kept) < len(records):
            self.close()
            self._start(kept)

    def close(self) -> None:
        """Flushes and closes the event files; the destructor of the writer also does this."""
        if self._events:
            self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self, records: list[dict]) -> None:
        self._last = max(map(_place, records), default=(0,))
        text = _text(records)
        if not self._path.exists() or self._path.read_text() != text:
            files.write(self._path, text)
        if self._events:
            self._events.begin(records)


def read_metrics(path: str | Path) -> list[dict]:
    """Records of a `metrics.jsonl`, oldest first; empty if there is no such file.

    An incomplete last line is dropped. `ValueError` gives the number of any other bad line.
    """
    path = Path(path)
    try:
        lines = files.read_bytes(path).decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{path} line {number} is not JSON: delete that line") from None
        if not _is_record(record):
            raise ValueError(f"{path} line {number} is no record of a run: delete that line")
        records.append(record)
    return records


class _Events:
    """TensorBoard event files in one folder per task; the first record makes them.

    Two files are open at most: that of the task that is trained and that of the evaluation.
    tensorboardX's `SummaryWriter` would add two threads, a pipe and locks in shared memory to each.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, _EventFile] = {}
        self._old: list[dict] = []
        self._fresh = True
        weakref.finalize(self, _close_quietly, self._writers)

    def begin(self, records: list[dict]) -> None:
        """Starts again from `records`."""
        self._old = records
        self._fresh = True

    def add(self, record: dict) -> None:
        if self._fresh:
            self._fresh = False
            shutil.rmtree(self._folder, ignore_errors=True)
            for old in self._old:
                self._write(old)
            self._old = []
        self._write(record)

    def _write(self, record: dict) -> None:
        evaluated = record["phase"] == EVALUATION
        prefix, run = (EVALUATION,) * 2 if evaluated else ("train", f"task_{record['task']:02d}")
        file = self._writers.get(prefix)
        if file is None or file.folder.name != run:
            if file is not None:
                self._writers.pop(prefix).close()
            file = self._writers[prefix] = _EventFile(self._folder / run)
        step = record["task"] if evaluated else record["step"]
        named = {name: value for name, value in record.items() if name not in _FIELDS}
        scalars = {f"{prefix}/{name}": v for name, v in named.items() if v is not None}
        file.add(scalars, step, record["time"])

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()


class _EventFile:
    """One file of events. What is not flushed yet is lost with the process."""

    def __init__(self, folder: Path):
        # Imported here, because the import takes long.
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter

        self.folder, self._flushed = folder, time.monotonic()
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard looks for this name.
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._file = RecordWriter(os.fspath(folder / name))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, scalars: dict[str, float], step: int, seconds: float) -> None:
        """Adds one value per name; `seconds` is the time since 1970."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=v) for name, v in scalars.items()]
        self._write(Event(wall_time=seconds, step=step, summary=Summary(value=values)))

    def _write(self, event) -> None:
        with files.writing(self.folder):
            self._file.write(event.SerializeToString())
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        with files.writing(self.folder):
            self._file.close()


def _close_quietly(writers: dict[str, _EventFile]) -> None:
    """For the end of the process: the events are made again from the lines."""
    for writer in writers.values():
        with contextlib.suppress(OSError):
            writer.close()
    writers.clear()


def _is_record(record) -> bool:
    """Whether parsed JSON is what `MetricWriter.write` stores."""
    if not isinstance(record, dict) or not {"task", "step", "phase", "time"} <= set(record):
        return False
    counts = all(type(record[name]) is int for name in ("task", "step"))
    numbers = all(
        value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)
        for name, value in record.items()
        if name != "phase"
    )
    return counts and numbers and isinstance(record["phase"], str)


def _is_before(record: dict, task: int, step: int | None) -> bool:
    trained = record["phase"] != EVALUATION
    if step is None:
        # Later tasks may be trained already, if the evaluation of a stored task is repeated.
        return trained or record["task"] < task
    if record["task"] != task:
        return record["task"] < task
    return trained and record["step"] <= step


def _place(record: dict) -> tuple[int, bool, int]:
    """The place of a record in the file: by task, its training before its evaluation, by step."""
    return record["task"], record["phase"] == EVALUATION, record["step"]


def _text(records: list[dict]) -> str:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def _finite(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
