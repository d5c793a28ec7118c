"""The outer loop: task after task, saved so that a kill at any moment costs only repeated work."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flcl import config, settings, stopping
from flcl.compiling import run_once
from flcl.data import loader
from flcl.data.stream import Task
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier, Generator, Memory
from flcl.rng import stream_key
from flcl.train import preliminary
from flcl.train import workdir as workdirs
from flcl.train.checkpoint import Checkpoints, DamagedError
from flcl.train.classifying import ClassifierEvaluation
from flcl.train.judging import GeneratorEvaluation
from flcl.train.loop import train_task
from flcl.train.phase import Phase
from flcl.train.results import Evaluation, Results
from flcl.train.setup import Build, Setup, prepare, use_compile_cache


class Reporter(Protocol):
    """Who is told how the run goes; `report.reporter.Reporter` for people."""

    def say(self, text: str) -> None:
        """One line."""

    def progress(self, description: str, total: int) -> Callable[..., None]:
        """A bar; the result takes the number of finished items and, optionally, a loss."""

    def begin_task(self, task: Task, phase: int, first_step: int) -> None:
        """Training of `task` goes on at `first_step`."""

    def record(self, step: int, metrics: dict) -> None:
        """Mean metrics since the last record of the task."""

    def evaluated(self, task: Task, results: dict, samples: dict[int, np.ndarray]) -> None:
        """Results after `task` and the generated images by label."""

    def finished(self, results: dict) -> None:
        """The run is complete."""


def run(
    run: settings.Run,
    workdir: str | Path,
    build: Build,
    make_reporter: Callable[[Path, settings.Run], Reporter],
) -> dict:
    """Trains and evaluates a whole task sequence, or continues one; returns `results.json`.

    The same call on the same workdir continues where it was killed and ends with the same results.
    A complete run is only read. Several processes make one run: each calls this with the same
    arguments on a folder that all of them see; the first writes.

    Raises `ValueError` in one line for bad settings or data, a workdir of another config, one that
    is not writable or in use, or a damaged checkpoint; `FloatingPointError` for a loss that is not
    finite; `StoppedError` after SIGTERM, with everything saved.
    """
    use_compile_cache(run.runtime)
    workdir = Path(workdir)
    with stopping.on_sigterm(jax.process_count() == 1) as sigterm, contextlib.ExitStack() as held:
        with hosts.together():
            setup = prepare(run, build)
            run = setup.method.resolved()
            if hosts.is_main():
                held.enter_context(workdirs.locked(workdir))
                _claim(workdir, run, setup.stream_dict())
        hosts.connect(setup.mesh)
        checkpoints = held.enter_context(Checkpoints(workdir / "checkpoints"))
        held.enter_context(jax.set_mesh(setup.mesh))
        return Experiment(setup, workdir, checkpoints, make_reporter(workdir, run), sigterm).run()


def _claim(workdir: Path, run: settings.Run, stream: dict) -> None:
    """Writes what the run is into its folder, or refuses a folder of another run."""
    workdirs.check_config(workdir, run)
    workdirs.check_stream(workdir, stream)
    workdirs.write_json(workdir / "config.json", config.as_dict(run))
    workdirs.write_json(workdir / "stream.json", stream)


class Experiment:
    """One run; every one of its processes has one."""

    def __init__(
        self,
        setup: Setup,
        workdir: Path,
        checkpoints: Checkpoints,
        reporter: Reporter,
        sigterm: stopping.SigTerm,
    ):
        self.setup = setup
        self._sigterm = sigterm
        self.workdir = workdir
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.evaluation = self._evaluation()
        self.results = Results(setup, self.evaluation)
        self._phases: dict[int, Phase] = {}

    def run(self) -> dict:
        """Trains what is not trained, evaluates what is not evaluated, reports."""
        stored = self.checkpoints.tasks()
        earlier = workdirs.read_json(self.workdir / "results.json") if hosts.is_main() else None
        self.results.load(hosts.from_main(earlier), len(stored))
        memory = initial_memory(self.setup, load=not stored)
        for task in self.setup.stream.tasks:
            if task.index in stored:
                memory = restore_task(self.setup, self.checkpoints, memory, task)
            else:
                memory = self._train(memory, task)
            if task.index > len(self.results.rows):
                self._evaluate(memory, task)
        self.checkpoints.drop_running()
        results = self.results.as_dict()
        self.reporter.finished(results)
        return results

    def _evaluation(self) -> Evaluation:
        progress = self._progress
        if isinstance(self.setup.method, Generator):
            return GeneratorEvaluation(self.setup, progress, self.checkpoints)
        folder = self.workdir / "features" if hosts.is_main() else None
        return ClassifierEvaluation(self.setup, progress, folder)

    def _train(self, memory: Memory, task: Task) -> Memory:
        """Trains one task from its start or from its last save, and stores what it added."""
        method, started = self.setup.method, time.monotonic()
        key = stream_key(self.setup.run.seed, "begin", task.index)
        trainable, frozen = method.begin(memory, task, key)
        if self.setup.steps(task):
            memory, trainable = self._optimise(memory, task, trainable, frozen)
        memory = method.end(memory, task, trainable)
        if isinstance(method, Classifier):
            memory = self.evaluation.calibrate(memory, task)
        self.checkpoints.save_task(task.index, method.added(memory, task))
        self.checkpoints.drop_running()
        self._note(task, "training_seconds", time.monotonic() - started)
        self._sigterm.check()  # it may have come after the last step asked for it
        return memory

    def _optimise(self, memory: Memory, task: Task, trainable, frozen) -> tuple[Memory, object]:
        """`(memory, trainable)` after the steps of a task."""
        setup, method, run = self.setup, self.setup.method, self.setup.run
        total = setup.steps(task)
        phase = self._phase(method.phase(task), trainable, frozen)
        frozen = jax.device_put(frozen, meshes.tree_sharding(frozen, setup.mesh))
        state, complexity = self._start(phase, trainable, task, total)
        if complexity is None and isinstance(method, Classifier):
            complexity = self._complexity(task, phase, trainable, frozen)
        if complexity is not None:
            memory, frozen = method.with_complexity(memory, frozen, task, complexity)
        first = int(state.step)
        self.reporter.begin_task(task, phase.index, first)
        position = sum(setup.steps(t) for t in setup.stream.tasks[: task.index - 1])

        def save(done: int, state) -> None:
            meta = {"task": task.index, "step": done, "complexity": complexity}
            self.checkpoints.save_running(position + done, state, meta)

        with self._sigterm.held():
            state = train_task(
                phase.advance,
                state,
                frozen,
                self._batches(memory, task, first, total),
                key=stream_key(run.seed, "train", task.index),
                per_call=phase.per_call,
                log_every=run.runtime.log_every,
                save_every=run.runtime.save_every,
                steps=total,
                save=save,
                stop=lambda done: hosts.stop_now(self._sigterm.received),
                record=self.reporter.record,
                advance=self.reporter.progress(f"task {task.index}", total),
                name=f"task {task.index}",
                remedy=method.remedy(phase.index),
            )
        return memory, state.ema

    def _complexity(self, task: Task, phase: Phase, trainable, frozen) -> float | None:
        """What the short run before `task` measures, None when the method makes none."""
        method = self.setup.method
        short = method.preliminary(task)
        if short is None:
            return None
        return preliminary.complexity(
            method,
            phase.index,
            task,
            trainable,
            frozen,
            self.setup.pools(task),
            run_steps=phase.advance,
            create=phase.create,
            preliminary=short,
            mesh=self.setup.mesh,
            losses=phase.losses,
            progress=self._progress,
        )

    def _progress(self, label: str, total: int):
        """A progress bar of what may stop anywhere; it is done again when the run continues."""
        advance = self.reporter.progress(label, total)

        def advance_or_stop(done: int, *values: float) -> None:
            advance(done, *values)
            # One process alone has stopped before; several stop in the same place.
            if hosts.stop_now(self._sigterm.received):
                raise stopping.StoppedError(f"stopped while {label}")

        return advance_or_stop

    def _batches(self, memory: Memory, task: Task, first: int, total: int):
        setup = self.setup

        def generate(memory, label, count):
            return self.evaluation.generate(memory, label, count, f"replay{task.index}")

        pools = setup.method.pools(task, setup.pools(task), memory, generate)
        batches = setup.method.batches(task, pools, hosts.shard())
        runtime = setup.run.runtime
        return loader.iterate(
            batches, first, total, threads=runtime.threads, prefetch=runtime.prefetch
        )

    def _phase(self, index: int, trainable, frozen) -> Phase:
        """The compiled programs of a phase; every task of the phase calls the same ones."""
        if index not in self._phases:
            self._phases[index] = Phase(
                self.setup.method, index, trainable, frozen, self.setup.mesh
            )
        return self._phases[index]

    def _start(self, phase: Phase, trainable, task: Task, total: int):
        """`(state, complexity)` of the newest readable save of this task, or a new state, None."""
        shapes = jax.eval_shape(phase.create, trainable, total)
        target = meshes.abstract(shapes, self.setup.mesh)
        while (found := self.checkpoints.running()) is not None:
            position, meta = found
            if meta["task"] != task.index:
                break
            try:
                restored = self.checkpoints.restore_running(position, target)
            except DamagedError as error:
                self.reporter.say(f"{error}; trying the one before")
                self.checkpoints.drop_running(position)
                continue
            self.reporter.say(f"continuing task {task.index} at step {meta['step']}")
            # Restored buffers may not be donatable; a copy always is.
            copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
            return copy(restored), meta["complexity"]
        return phase.create(trainable, total), None

    def _evaluate(self, memory: Memory, task: Task) -> None:
        started = time.monotonic()
        row = self.evaluation.evaluate(memory, task)
        self.results.add(row, self.setup.method.diagnose(memory, task))
        results = self.results.as_dict()
        self.reporter.evaluated(task, results, self.evaluation.drawn)
        self._note(task, "evaluation_seconds", time.monotonic() - started)
        self._note(task, "bytes_on_disk", self.checkpoints.bytes_of_task(task.index))
        # Last: from here on the task counts as evaluated.
        if hosts.is_main():
            workdirs.write_json(self.workdir / "results.json", results)

    def _note(self, task: Task, what: str, value: float) -> None:
        """Adds to `timing.json`; a task that was interrupted counts only its last process."""
        if not hosts.is_main():
            return
        path = self.workdir / "timing.json"
        timing = workdirs.read_json(path) or {
            "device": str(np.unique([d.device_kind for d in jax.devices()])[0]),
            "devices": jax.device_count(),
            "tasks": {},
        }
        timing["tasks"].setdefault(str(task.index), {})[what] = round(value, 3)
        workdirs.write_json(path, timing)


def initial_memory(setup: Setup, load: bool = False) -> Memory:
    """Memory before the first task, on the devices of the run.

    load: also what the method reads from files; not needed when the first task is restored.
    """
    key = stream_key(setup.run.seed, "init")
    abstract = jax.eval_shape(setup.method.init, key)
    sharding = meshes.tree_sharding(abstract, setup.mesh)
    init = jax.jit(setup.method.init, out_shardings=sharding, compiler_options=run_once())
    memory = init(key)
    return jax.device_put(setup.method.load(memory), sharding) if load else memory


def restore_task(setup: Setup, checkpoints: Checkpoints, memory: Memory, task: Task) -> Memory:
    """The memory with the stored part of `task` put back; raises `DamagedError`."""
    target = jax.eval_shape(lambda m: setup.method.added(m, task), memory)
    added = checkpoints.restore_task(task.index, meshes.abstract(target, setup.mesh))
    return setup.method.restore(memory, task, added)
