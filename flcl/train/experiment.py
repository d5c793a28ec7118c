"""The outer loop: task after task, saved so that a kill at any moment costs only repeated work."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flcl import config, settings
from flcl.compiling import run_once
from flcl.data import loader
from flcl.data.stream import Task
from flcl.methods.base import Memory
from flcl.rng import stream_key
from flcl.train import mesh as meshes
from flcl.train import state as states
from flcl.train import step as steps
from flcl.train import workdir as workdirs
from flcl.train.checkpoint import Checkpoints, DamagedError
from flcl.train.evaluation import Evaluator
from flcl.train.loop import train_task
from flcl.train.results import Results
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
    A complete run is only read.

    Raises `ValueError` in one line for bad settings or data, a workdir of another config, one that
    is not writable or in use, or a damaged checkpoint; `FloatingPointError` for a loss that is not
    finite.
    """
    use_compile_cache(run.runtime)
    setup = prepare(run, build)
    run, workdir, stream = setup.method.resolved(), Path(workdir), setup.stream_dict()
    with workdirs.locked(workdir):
        workdirs.check_config(workdir, run)
        workdirs.check_stream(workdir, stream)
        workdirs.write_json(workdir / "config.json", config.as_dict(run))
        workdirs.write_json(workdir / "stream.json", stream)
        with Checkpoints(workdir / "checkpoints") as checkpoints, jax.set_mesh(setup.mesh):
            return Experiment(setup, workdir, checkpoints, make_reporter(workdir, run)).run()


class Experiment:
    """One run in one process."""

    def __init__(self, setup: Setup, workdir: Path, checkpoints: Checkpoints, reporter: Reporter):
        self.setup = setup
        self.workdir = workdir
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.results = Results(setup)
        self.evaluator = Evaluator(setup, self.reporter.progress)
        self._steps: dict[int, object] = {}

    def run(self) -> dict:
        """Trains what is not trained, evaluates what is not evaluated, reports."""
        stored = self.checkpoints.tasks()
        self.results.load(self.workdir, len(stored))
        memory = initial_memory(self.setup)
        real_judge = None
        for task in self.setup.stream.tasks:
            if task.index in stored:
                memory = restore_task(self.setup, self.checkpoints, memory, task)
            else:
                memory = self._train(memory, task)
            if task.index > len(self.results.rows):
                if real_judge is None:
                    real_judge = self._real_judge()
                self._evaluate(memory, task, real_judge)
        self.checkpoints.drop_running()
        results = self.results.as_dict(self.evaluator)
        self.reporter.finished(results)
        return results

    def _train(self, memory: Memory, task: Task) -> Memory:
        """Trains one task from its start or from its last save, and stores what it added."""
        setup, started = self.setup, time.monotonic()
        phase_index = setup.method.phase(task)
        phase = setup.method.phase_settings(phase_index)
        key = stream_key(setup.run.seed, "train", task.index)
        trainable, frozen = setup.method.begin(
            memory, task, stream_key(setup.run.seed, "begin", task.index)
        )
        optimizer = setup.method.optimizer(phase_index)
        abstract = jax.eval_shape(lambda tree: states.create(tree, optimizer), trainable)
        sharding = meshes.tree_sharding(abstract, setup.mesh)
        create = jax.jit(
            lambda tree: states.create(tree, optimizer),
            out_shardings=sharding,
            compiler_options=run_once(),
        )
        state = create(trainable)
        frozen = jax.device_put(frozen, meshes.tree_sharding(frozen, setup.mesh))
        state = self._resume(state, task)
        step_fn = self._step(phase_index, state, frozen)
        first = int(state.step)
        self.reporter.begin_task(task, phase_index, first)
        state = train_task(
            step_fn,
            state,
            frozen,
            self._batches(memory, task, phase, first),
            key=key,
            mesh=setup.mesh,
            log_every=setup.run.runtime.log_every,
            save_every=setup.run.runtime.save_every,
            steps=phase.steps,
            save=lambda done, state: self._save(task, done, state),
            record=self.reporter.record,
            advance=self.reporter.progress(f"task {task.index}", phase.steps),
            name=f"task {task.index}, phase{phase_index}",
        )
        memory = setup.method.end(memory, task, state.ema)
        self.checkpoints.save_task(task.index, setup.method.added(memory, task))
        self.checkpoints.drop_running()
        self._note(task, "training_seconds", time.monotonic() - started)
        return memory

    def _batches(self, memory: Memory, task: Task, phase: settings.Phase, first: int):
        setup = self.setup

        def generate(memory, label, count):
            return self.evaluator.generate(memory, label, count, f"replay{task.index}")

        pools = setup.method.pools(task, setup.pools(task), memory, generate)
        batches = loader.class_groups(
            pools,
            groups=phase.groups,
            per_group=phase.batch_size // phase.groups,
            seed=setup.run.seed,
            task=task.index,
            shard=(jax.process_index(), jax.process_count()),
        )
        runtime = setup.run.runtime
        return loader.iterate(
            batches, first, phase.steps, threads=runtime.threads, prefetch=runtime.prefetch
        )

    def _step(self, phase: int, state, frozen):
        """The compiled step of a phase; every task of the phase calls the same one."""
        if phase not in self._steps:
            method = self.setup.method

            def loss(trainable, frozen, batch, key):
                return method.loss(phase, trainable, frozen, batch, key)

            decay = method.phase_settings(phase).ema_decay
            step = steps.train_step(loss, method.optimizer(phase), decay)
            self._steps[phase] = steps.compile_step(step, state, frozen, self.setup.mesh)
        return self._steps[phase]

    def _position(self, task: Task, done: int) -> int:
        """Finished steps counted over all tasks."""
        method = self.setup.method
        before = self.setup.stream.tasks[: task.index - 1]
        return done + sum(method.phase_settings(method.phase(t)).steps for t in before)

    def _save(self, task: Task, done: int, state) -> None:
        meta = {"task": task.index, "step": done}
        self.checkpoints.save_running(self._position(task, done), state, meta)

    def _resume(self, state, task: Task):
        """The newest saved state of this task that can be read, or the given one."""
        target = jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding), state
        )
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
            return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(restored)
        return state

    def _real_judge(self) -> dict:
        """The judge trained on real images: the ceiling, and the measure of fidelity."""
        evaluator = self.evaluator
        target = evaluator.judge.abstract_variables()
        same = meshes.replicated(self.setup.mesh)
        target = jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=same), target
        )
        variables = self.checkpoints.restore_judge(target)
        if variables is None:
            variables = evaluator.train_on_real()
            self.checkpoints.save_judge(variables)
        self.results.ceiling = evaluator.accuracies(variables, list(self.setup.stream.groups))
        return variables

    def _evaluate(self, memory: Memory, task: Task, real_judge) -> None:
        started = time.monotonic()
        row = self.evaluator.evaluate(memory, task, real_judge)
        diagnosis = self.setup.method.diagnose(memory, task)
        self.results.add(row, diagnosis)
        results = self.results.as_dict(self.evaluator)
        self.reporter.evaluated(task, results, self.evaluator.drawn)
        self._note(task, "evaluation_seconds", time.monotonic() - started)
        self._note(task, "bytes_on_disk", self.checkpoints.bytes_of_task(task.index))
        # Last: from here on the task counts as evaluated.
        workdirs.write_json(self.workdir / "results.json", results)

    def _note(self, task: Task, what: str, value: float) -> None:
        """Adds to `timing.json`; a task that was interrupted counts only its last process."""
        path = self.workdir / "timing.json"
        timing = workdirs.read_json(path) or {
            "device": str(np.unique([d.device_kind for d in jax.devices()])[0]),
            "devices": jax.device_count(),
            "tasks": {},
        }
        timing["tasks"].setdefault(str(task.index), {})[what] = round(value, 3)
        workdirs.write_json(path, timing)


def initial_memory(setup: Setup) -> Memory:
    """Memory before the first task, on the devices of the run."""
    key = stream_key(setup.run.seed, "init")
    abstract = jax.eval_shape(setup.method.init, key)
    sharding = meshes.tree_sharding(abstract, setup.mesh)
    init = jax.jit(setup.method.init, out_shardings=sharding, compiler_options=run_once())
    return init(key)


def restore_task(setup: Setup, checkpoints: Checkpoints, memory: Memory, task: Task) -> Memory:
    """The memory with the stored part of `task` put back; raises `DamagedError`."""
    target = jax.eval_shape(lambda m: setup.method.added(m, task), memory)
    sharding = meshes.tree_sharding(target, setup.mesh)
    target = jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s), target, sharding
    )
    added = checkpoints.restore_task(task.index, target)
    return setup.method.restore(memory, task, added)
