"""What a run holds in its process after each task."""

import gc
import os
import threading
from pathlib import Path

import jax

from flcl import settings
from flcl.report.reporter import Reporter
from flcl.runs import experiment


class Watching(Reporter):
    """A reporter that looks at this process after each task.

    Attributes:
      sizes: after each task the number of Python objects, the bytes of arrays on the devices, the
        number of open files and that of threads.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.sizes: list[tuple[int, int, int, int]] = []

    def evaluated(self, task, results, pictures):
        super().evaluated(task, results, pictures)
        gc.collect()
        arrays = sum(array.nbytes for array in jax.live_arrays())
        files = len(os.listdir("/proc/self/fd"))
        self.sizes.append((len(gc.get_objects()), arrays, files, threading.active_count()))


def watched(run: settings.Run, workdir: Path) -> tuple[dict, list[tuple[int, int, int, int]]]:
    """Makes a run; its results, and the `sizes` after each of its tasks."""
    reporters = []

    def make(*args) -> Watching:
        reporters.append(Watching(*args))
        return reporters[0]

    return experiment.run(run, workdir, make), reporters[0].sizes
