"""Benchmarks of the loader, the training loop and the start of a process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import flcl
from flcl import settings
from flcl.bench.figures import Figure, timed
from flcl.bench.programs import dtype_of, one_device
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.data import loader as batches
from flcl.devices import sharding
from flcl.rng import stream_key
from flcl.runs.memory import empty_memory
from flcl.runs.setup import prepare
from flcl.settings import bridge
from flcl.training.loop import TaskTraining
from flcl.training.step import Phase

COLD_START = "flcl.bench.items.first_step"


def loader(size: Size, rounds: int) -> Iterator[Figure]:
    """The whole training loop with the real loader against the same loop on one batch."""
    loops = Loops(size.generator_run(model__dtype=dtype_of(size)), size.loop_steps)
    seconds = interleave({"real": loops.real, "constant": loops.constant}, rounds)
    rate = loops.images / float(np.median(seconds["real"]))
    note = f"{size.loop_steps} steps a round, the start of the loader's threads included"
    yield timed("loader", seconds["real"], seconds["constant"], images_per_second=rate, note=note)


def steps_per_call(size: Size, rounds: int) -> Iterator[Figure]:
    """Eight optimiser steps in one call against one step per call, on one batch."""
    loops = {}
    for count in (8, 1):
        changes = {"model__dtype": dtype_of(size), "runtime__steps_per_call": count}
        loops[count] = Loops(size.generator_run(**changes), -(-size.loop_steps // 8) * 8)
    seconds = interleave({"eight": loops[8].constant, "one": loops[1].constant}, rounds)
    rate = loops[8].images / float(np.median(seconds["eight"]))
    yield timed("steps_per_call", seconds["eight"], seconds["one"], images_per_second=rate)


class Loops:
    """The training loop of a first task, on its real batches or on only one of them.

    Attributes:
      images: trained on by one call.
    """

    def __init__(self, run: settings.FunLoRARun, steps: int):
        self.steps, self.images = steps, steps * run.phase1.batch_size
        self._setup, _ = prepare(run, one_device())
        setup, data, method = self._setup, self._setup.data, self._setup.method
        task, key = data.stream.tasks[0], stream_key(0, "benchmark")
        trainable, frozen = method.begin(empty_memory(setup), task, key)
        self._phase = Phase(method, 1, trainable, frozen, setup.mesh)
        self._frozen = sharding.place(frozen, setup.mesh, method.divides)
        self._state = self._phase.create(trainable, run.phase1.steps)
        self.dataset = method.batches(task, data.train(task), (0, 1))
        self._first, self._done = self.dataset[0], 0

    def real(self):
        """Some steps on batches that grain's threads prepare."""
        runtime = self._setup.run.runtime
        options = {"threads": runtime.threads, "prefetch": runtime.prefetch}
        return self._train(
            batches.iterate(self.dataset, self._done, self._done + self.steps, **options)
        )

    def constant(self):
        """As many steps on the first batch."""
        return self._train([self._first] * self.steps)

    def last_loss(self) -> float:
        """The mean loss of the last tenth of as many steps on the real batches."""
        losses: list[float] = []
        source = batches.iterate(self.dataset, self._done, self._done + self.steps)
        every = max(1, self.steps // 10)
        self._train(source, every, lambda done, metrics: losses.append(metrics["loss"]))
        return losses[-1]

    def _train(self, source, log_every: int = 0, record=lambda done, metrics: None):
        self._done += self.steps
        training = TaskTraining(
            name="the benchmark",
            steps=sys.maxsize,
            key=stream_key(0, "train", 1),
            remedy=self._setup.method.remedy(1),
            log_every=log_every or self.steps,
            save_every=sys.maxsize,
            record=record,
        )
        self._state = training.run(self._phase, self._state, self._frozen, source)
        return self._state


def first_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Time from the start of a process to its first step: with and without the compile cache."""
    cold, warm = [], []
    for _ in range(max(1, rounds // 5)):  # minutes each at full size
        with tempfile.TemporaryDirectory() as folder:
            for seconds in (cold, warm):
                seconds.append(_start(size.generator_run(), folder))
    yield timed("first_step", warm, cold, note="import, data, build, compile, one step; float32")


def _start(run: settings.Run, cache: str) -> float:
    """Seconds of a process that makes one step and keeps its programs in `cache`."""
    path = [str(Path(flcl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # this process may hold most of a GPU's memory
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", COLD_START],
        input=json.dumps(bridge.as_dict(run)),
        env=env,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"first_step: the process ended early: {lines[-1]}")
    return seconds
