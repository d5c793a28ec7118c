"""Metrics of a run: one JSON line per record, and the same values as TensorBoard events.

`metrics.jsonl` is the reference. A resumed run makes the event files from it again, because a
killed process loses the events that were not flushed, and events cannot be removed.
"""

import json
import math
import os
import shutil
import sys
import time
import weakref
from pathlib import Path

from flcl import files

EVALUATION = "evaluation"
"""The phase of records from the evaluation of a task; all other phases are training."""

_FIELDS = ("task", "step", "phase", "time")


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
        with self._path.open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
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
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
        if not self._path.exists() or self._path.read_text() != text:
            files.write(self._path, text)
        if self._events:
            self._events.begin(records)


def read_metrics(path: str | Path) -> list[dict]:
    """Records of a `metrics.jsonl`, oldest first; empty if there is no such file.

    An incomplete last line is dropped. `ValueError` gives the number of any other bad line.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").split("\n")
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
    """TensorBoard event files in one folder per task; the first record makes them."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, object] = {}
        self._old: list[dict] = []
        self._fresh = True
        weakref.finalize(self, _close, self._writers)

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
        run = EVALUATION if evaluated else f"task_{record['task']:02d}"
        step = record["task"] if evaluated else record["step"]
        if run not in self._writers:
            from tensorboardX import SummaryWriter  # imported here, because the import takes long

            self._writers[run] = SummaryWriter(os.fspath(self._folder / run))
        prefix = EVALUATION if evaluated else "train"
        for name, value in record.items():
            if name not in _FIELDS and value is not None:
                self._writers[run].add_scalar(f"{prefix}/{name}", value, step, record["time"])

    def close(self) -> None:
        _close(self._writers)


def _close(writers: dict) -> None:
    for writer in writers.values():
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


def _finite(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
