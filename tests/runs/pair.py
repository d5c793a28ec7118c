"""Two processes with two devices each that do jobs together: see `paired.py`."""

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 300  # seconds of a job


class Ended(NamedTuple):
    """How a job ended in one process.

    Attributes:
      code: 0, or 2 for a job that raised `ValueError`; the exit code if the process ended with it.
      error: the text of that error.
      printed: what the process printed meanwhile.
    """

    code: int
    error: str
    printed: str


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Pair:
    """Two processes; folder: for what they print.

    Attributes:
      living: whether both wait for a job.
      began: how the first job ended in each.
    """

    def __init__(self, folder: Path, words: list[str] | None = None):
        """words: a command, in which the processes find each other; None = `paired.start`."""
        folder.mkdir()
        self._processes = [_Process(folder / f"{number}.txt") for number in range(2)]
        self.living = True
        address = f"127.0.0.1:{free_port()}"
        given = [{"address": address, "number": number} for number in range(2)]
        if words is not None:
            flags = [f"--coordinator={address}", "--processes=2"]
            given = [{"words": [*words, *flags, f"--process={number}"]} for number in range(2)]
        self.began = self._do("start" if words is None else "command", given)

    def both(self, job: str, second: dict | None = None, **arguments) -> list[Ended]:
        """Does a job of `paired` in both; second: arguments that the second process has instead."""
        assert self.living
        return self._do(job, [arguments, {**arguments, **(second or {})}])

    def close(self) -> list[int]:
        """Lets both end; returns their exit codes."""
        self.living = False
        for process in self._processes:
            process.close()
        return [process.wait() for process in self._processes]

    def _do(self, job: str, arguments: list[dict]) -> list[Ended]:
        for process, own in zip(self._processes, arguments, strict=True):
            process.send([job, own])
        limit = self._kill_after(_LONGEST)
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(self._answer, self._processes))
        limit.cancel()
        return ended

    def _answer(self, process: "_Process") -> Ended:
        if answer := process.answer():
            code, error = json.loads(answer)
            return Ended(code, error, process.printed())
        self.living, code = False, process.wait()
        if code:  # the other one may be about to end, too; otherwise it ends as under a launcher
            self._kill_after(20)
        return Ended(code, "", process.printed())

    def _kill_after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._kill)
        timer.daemon = True
        timer.start()
        return timer

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()


class _Process:
    def __init__(self, log: Path):
        read, self._to = os.pipe()
        answers, write = os.pipe()
        self._log, self._seen = log, 0
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "runs" / "paired.py", str(read), str(write)],
                env=_environment(2),
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(read, write),
            )
        os.close(read)
        os.close(write)
        self._answers = os.fdopen(answers)

    def send(self, job) -> None:
        os.write(self._to, json.dumps(job).encode() + b"\n")

    def answer(self) -> str:
        return self._answers.readline()

    def printed(self) -> str:
        text = self._log.read_text()
        new, self._seen = text[self._seen :], len(text)
        return new

    def close(self) -> None:
        """No job comes any more."""
        if self._to is not None:
            os.close(self._to)
        self._to = None

    def wait(self) -> int:
        code = self._process.wait(timeout=_LONGEST)
        self.close()
        self._answers.close()
        return code

    def kill(self) -> None:
        self._process.kill()


def _environment(devices: int) -> dict:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "runs"))),
        "JAX_NUM_CPU_DEVICES": str(devices),
        # The first process compiles what both run, and the second one waits for it.
        "JAX_SHARE_BINARY_BETWEEN_HOSTS": "1",
        "JAX_SHARE_BINARY_BETWEEN_HOSTS_TIMEOUT_MS": str(1000 * _LONGEST // 3),
        # Compiling is nearly all of it.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
