"""Whether later tasks cost more: the last task against the second, and the size on disk."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from flcl import methods, settings
from flcl.bench.figures import Figure, counted, timed
from flcl.bench.sizes import Size
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.rng import stream_key
from flcl.runs import experiment
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.settings import bridge


def last_task(size: Size, rounds: int) -> Iterator[Figure]:
    """Steps and live device arrays of the last task of a real run against those of its second."""
    watch = Watch()
    steps = (rounds + 1) * size.task_steps
    with tempfile.TemporaryDirectory() as folder:
        run = _many_tasks(Path(folder), size, steps)
        experiment.run(run, Path(folder) / "run", lambda *_: watch)
    # The first interval of task 2 includes the compilation of phase 2.
    second, last = (watch.seconds[task][1:] for task in (2, size.tasks))
    note = f"task {size.tasks} against task 2, {size.task_steps} tiny steps each round, one run"
    yield timed("last_task", last, second, note=note)
    bytes_2, bytes_last = watch.bytes[2], watch.bytes[size.tasks]
    yield counted("last_task/bytes", bytes_last, bytes_2, f"{bytes_last:,} of {bytes_2:,} bytes")


class Watch:
    """A reporter that stores the time between records and the bytes on the devices.

    Attributes:
      seconds: for each task, the times from record to record; the first from the task's start.
      bytes: for each task, bytes of live arrays at its end, without arrays from before the run.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[int, list[float]] = {}
        self.bytes: dict[int, int] = {}
        self._before, self._clock = live_bytes(), clock
        self._task, self._last = 0, 0.0

    def say(self, text: str) -> None:
        """Ignored."""

    def progress(self, description: str, total: int) -> Callable[..., None]:
        """Ignored."""
        del description, total
        return lambda *_: None

    def begin_task(self, task, phase: int, first_step: int) -> None:
        """Starts the clock of a task."""
        del phase, first_step
        self._task, self._last = task.index, self._clock()
        self.seconds[task.index] = []

    def record(self, step: int, metrics: dict) -> None:
        """Stores the seconds since the last record; the losses have just been read."""
        del step, metrics
        now = self._clock()
        self.seconds[self._task].append(now - self._last)
        self._last = now

    def evaluated(self, task, results: dict, samples: dict) -> None:
        """Stores the bytes of live arrays."""
        del results, samples
        self.bytes[task.index] = live_bytes() - self._before

    def finished(self, results: dict) -> None:
        """Ignored."""


def live_bytes() -> int:
    """Bytes of all live arrays on the devices."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def _many_tasks(folder: Path, size: Size, steps: int) -> settings.FunLoRARun:
    """A run with one class of random 8 x 8 images per task and almost no evaluation."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(size.tasks), 8)
    images = generator.integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    parts = {"train_images": images, "test_images": images}
    np.savez(folder / "data.npz", train_labels=labels, test_labels=labels, **parts)
    values = {
        "data.source": f"npz:{folder / 'data.npz'}",
        "stream.tasks": str(size.tasks),
        "sample.solver": "euler",
        "sample.num_steps": 1,
        "sample.chunk": 8,
        "runtime.save_every": steps + 1,
        "runtime.log_every": size.task_steps,
        "runtime.progress": False,
    }
    values |= {"model.width": 16, "model.multipliers": (1,), "model.blocks": 1}
    values |= {"model.attention": (), "model.head_channels": 16, "adapter.layers": "2-9"}
    values |= {"judge.width": 4, "judge.epochs": 1.0, "judge.batch_size": 32, "judge.crop": 0}
    values |= {"judge.images_per_class": 8}
    for phase in ("phase1", "phase2"):
        tiny = {"steps": steps, "batch_size": 16, "groups": 1, "warmup_steps": 1, "dropout": 0.0}
        values |= {f"{phase}.{key}": value for key, value in tiny.items()}
    run = bridge.defaults("funlora")
    run.update_from_flattened_dict(values)
    return bridge.freeze(run)


def bytes_per_class(size: Size, rounds: int) -> Iterator[Figure]:
    """Bytes on disk of a stored task of CIFAR-100 against four bytes for each parameter."""
    del size, rounds  # always the network of the paper; its classes are stored, not trained
    values = {"data.image_size": 32, "data.channels": 3, "stream.tasks": "5"}
    edited = bridge.defaults("funlora")
    edited.update_from_flattened_dict(values)
    run = bridge.freeze(edited)
    method = methods.build(run, make_stream(run.stream, placeholder(100)))
    task = method.stream.tasks[1]
    memory = jax.eval_shape(method.init, stream_key(0, "benchmark"))
    added = jax.eval_shape(lambda m: method.added(m, task), memory)
    generator = np.random.default_rng(0)  # random, so a file format cannot compress it
    tree = jax.tree.map(lambda v: generator.normal(size=v.shape).astype(v.dtype), added)
    parameters = method.describe()["parameters_per_class"] * len(task.labels)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as checkpoints:
        checkpoints.save_task(task.index, jax.device_put(tree))
        stored = checkpoints.bytes_of_task(task.index)
    note = f"{len(task.labels)} classes of {parameters // len(task.labels):,} parameters"
    yield counted("bytes_per_class", stored, 4 * parameters, note)
