"""Asks worker processes for trials, one process at a time, and survives what happens to them."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

_WORKER = Path(__file__).with_name("worker.py")
_TRIALS = 60  # of one process; then another one starts


class Result(NamedTuple):
    """How a trial ended: `problem` is empty unless it is a fault."""

    seed: int
    number: int
    kind: str
    ended: str
    problem: str
    notes: list[str]
    seconds: float

    def repro(self) -> str:
        """The words that repeat this trial."""
        return f"--repro={self.seed}:{self.number}:{self.kind}"


class Driver:
    """Runs trials in worker processes. As a context manager it ends the last one.

    devices: of each process, on a CPU.
    """

    def __init__(self, folder: Path, devices: int = 1):
        self._folder, self._process, self._left = Path(folder), None, 0
        self._environment = _environment(devices)
        self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def trial(self, seed: int, number: int, kind: str, seconds: float) -> Result:
        """Runs one trial; a process that dies without a reason, or hangs, is a fault."""
        started, phase, notes = time.time(), 1, []
        while True:
            answer = self._ask(seed, number, kind, phase, seconds)
            if answer is not None and "ended" in answer:
                ended, problem, notes = answer["ended"], answer["problem"], answer["notes"]
                break
            died = self._died
            self._end()
            if phase == 1 and died == "as planned":
                phase = 2  # what comes after the death, in a new process
                continue
            ended, problem = "", died
            break
        if problem:
            self._end()  # nothing of a fault may reach the next trial
        return Result(seed, number, kind, ended, problem, notes, time.time() - started)

    def _ask(self, seed, number, kind, phase, seconds):
        """The answer of a worker, or None if it died or hung: then `_died` says how."""
        if self._process is None or self._left == 0:
            self._end()
            self._start()
        self._left -= 1
        asked = {"seed": seed, "number": number, "kind": kind, "phase": phase}
        os.write(self._to, json.dumps(asked).encode() + b"\n")
        deadline, planned = time.time() + seconds, False
        while (line := self._line(deadline)) is not None:
            if "ended" in line:
                return line
            planned = planned or "dying" in line
            deadline += line.get("seconds", 0)
        self._died = self._reason(planned)
        return None

    def _line(self, deadline: float) -> dict | None:
        """The next line from the worker; None at its end or after the deadline."""
        while b"\n" not in self._buffer:
            left = deadline - time.time()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            content = os.read(self._from, 65536)
            if not content:
                return None
            self._buffer += content
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _reason(self, planned: bool) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGUSR1)  # it prints where it is
            time.sleep(1)
            return f"it hangs\n{self._log()}"
        # After a stop, a program that has not begun, or is over, may end with its code at once.
        if planned and code in (-signal.SIGKILL, 75, 130):
            return "as planned"
        return f"the process died with code {code}\n{self._log()}"

    def _log(self) -> str:
        return (self._folder / "worker.log").read_text(errors="replace")[-3000:]

    def _start(self) -> None:
        child_in, self._to = os.pipe()
        self._from, child_out = os.pipe()
        command = [sys.executable, str(_WORKER), str(self._folder), str(child_in), str(child_out)]
        with (self._folder / "worker.log").open("w") as log:
            self._process = subprocess.Popen(
                command,
                pass_fds=(child_in, child_out),
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        os.close(child_in), os.close(child_out)
        self._buffer, self._left = b"", _TRIALS

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            os.close(self._to), os.close(self._from)
            self._process = None


def _environment(devices: int) -> dict[str, str]:
    """That of the tests, so that both keep their compiled programs in one place."""
    defaults = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(Path.home() / ".cache" / "flcl-campaign"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "MPLBACKEND": "agg",
        "COLUMNS": "120",
        "PYTHONPATH": os.pathsep.join(map(str, (_WORKER.parents[2], _WORKER.parents[1]))),
    }
    environment = {**defaults, **os.environ, "PYTHONPATH": defaults["PYTHONPATH"]}
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    if "xla_backend_optimization_level" not in environment.get("XLA_FLAGS", ""):
        flags = environment.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()
    return environment


def kind_of(seed: int, number: int, weights: dict[str, int]) -> str:
    """The kind of a trial: every kind once, then by weight."""
    if number < len(weights):
        return list(weights)[number]
    chosen = random.Random(f"{seed}:{number}")
    return chosen.choices(list(weights), list(weights.values()))[0]
