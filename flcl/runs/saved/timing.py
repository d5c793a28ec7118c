"""`timing.json`: how long each task took and how large it is on disk."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from flcl import files
from flcl.runs.saved.stored import TIMING, read_timing


class Times:
    """The seconds and bytes of each task; only the first process has one.

    A damaged file is started again: clocks cannot be read again. `say` then gets a line about it.
    """

    def __init__(self, workdir: Path, say: Callable[[str], None]):
        self._path = workdir / TIMING
        device = str(np.unique([d.device_kind for d in jax.devices()])[0])
        started = {"device": device, "devices": jax.device_count(), "tasks": {}}
        try:
            self._values = {**started, **read_timing(workdir)}
        except ValueError as error:
            say(f"{error}; it is started again, without the times of earlier tasks")
            self._values = started
            files.write_json(self._path, started)

    def note(self, task: int, what: str, value: float) -> None:
        """Adds a value of a task. An interrupted task counts only the last process."""
        self._values["tasks"].setdefault(str(task), {})[what] = round(value, 3)
        files.write_json(self._path, self._values)
