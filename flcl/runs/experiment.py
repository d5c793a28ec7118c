"""The outer loop over tasks. It saves often: a run that is killed only repeats a little work."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from flcl import files, settings, stopping, waiting
from flcl.data.encoded.check import Progress, silent
from flcl.data.sequence.learned import LearnedTask
from flcl.data.sequence.stream import Task
from flcl.devices import hosts
from flcl.evaluate.classifiers import ClassifierEvaluation
from flcl.evaluate.features import Inference
from flcl.evaluate.generators import GeneratorEvaluation
from flcl.evaluate.lower import Lower
from flcl.evaluate.references import References
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import STRAIGHTENING, Classifier, Generator, Memory, Method
from flcl.rng import stream_key
from flcl.runs import room
from flcl.runs.memory import empty_memory, first_memory, grown, restore_task, stored_tasks
from flcl.runs.optimising import Optimising
from flcl.runs.planned.plan import planned
from flcl.runs.record import Evaluation, Record
from flcl.runs.reporter import Reporter, introduce
from flcl.runs.results import NAME, to_json
from flcl.runs.saved import removed
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.earlier import Earlier
from flcl.runs.saved.timing import Times
from flcl.runs.setup import Setup, prepare, use_compile_cache
from flcl.runs.statistics import substitutes
from flcl.runs.statistics.gathering import Statistics
from flcl.storage import foreign
from flcl.storage.seals import Seals
from flcl.training.step import aligned
from flcl.training.straighten import straightened
from flcl.training.survey import Survey


def run(
    run: settings.Run,
    workdir: str | Path,
    make_reporter: Callable[[Path, settings.Run], Reporter],
    progress: Progress = silent,
    loaded: Mapping[int, LearnedTask] | None = None,
    until: int | None = None,
) -> dict:
    """Trains and evaluates a whole task sequence, or continues one; returns `results.json`.

    The same call on the same workdir continues a run that was killed, with the same results. A
    complete run is only read. The tasks are those of the settings, and those that
    `runs.later.learning` has added to the workdir. loaded: None, or `learning` calls: then the
    settings are those of the workdir, and these are images of such tasks that were read already, by
    number. until: the last task of this call; None = all tasks.

    If several processes make one run, each calls this function with the same arguments and a shared
    folder; only the first process writes. progress: shows how many images are read before there is
    a reporter.

    Raises `ValueError` in one line for bad settings or data, for a workdir that belongs to another
    config, is not writable or is in use, and for a damaged checkpoint; `FloatingPointError` for a
    loss that is not finite; `StoppedError` after SIGTERM or Ctrl-C, when everything is saved.
    """
    began = time.monotonic()
    use_compile_cache(run.runtime)
    workdir = Path(workdir)
    seals = Seals(workdir, writes=hosts.is_main())
    # In a run of several processes JAX handles SIGTERM: see `hosts.stop_now`.
    with stopping.on_signals(jax.process_count() > 1), contextlib.ExitStack() as held:
        # If one process finds an error here, such as a locked folder, all processes stop.
        with hosts.together():
            setup, weights = _prepared(run, workdir, progress, loaded)
            room.check_kept(setup.run, setup.method, setup.data)
            setup, old_images = substitutes.prepare(setup, progress)
        if loaded is None:  # a later task has the lengths that are stored
            setup = planned(setup, workdir, began, progress)
        with hosts.together():
            # Entered first, so it is released last: the lock is held until all checkpoints are
            # written.
            claim = workdirs.claimed(workdir, setup.run, setup.data.to_dict(), seals)
            check_there, notes = held.enter_context(claim)
        # Before the first program is compiled: that may take longer in one process than in others.
        hosts.connect(setup.mesh)
        checkpoints = held.enter_context(Checkpoints(workdir / "checkpoints", seals=seals))
        held.enter_context(jax.set_mesh(setup.mesh))
        stored = stored_tasks(checkpoints, setup.data.stream)
        # A stored task includes the trunk; then the weights were read only to check their hash.
        memory = empty_memory(setup) if stored else first_memory(setup, weights)
        # The memory has its own copy. Without this line a large trunk would stay in memory twice.
        del weights
        reporter = make_reporter(workdir, setup.run)
        held.enter_context(waiting.told(reporter.say if hosts.is_main() else None))
        introduce(reporter, setup, notes)
        experiment = Experiment(
            setup, workdir, checkpoints, reporter, check_there, seals, old_images
        )
        return experiment.run(memory, stored, until)


def _prepared(
    run: settings.Run,
    workdir: Path,
    progress: Progress,
    loaded: Mapping[int, LearnedTask] | None,
) -> tuple[Setup, Any]:
    """The checked setup and the pre-trained weights of a run that begins or goes on."""
    with hosts.together():
        if hosts.is_main():
            foreign.check_folder(workdir)
    begun = workdirs.begun(workdir)
    history = workdirs.history(workdir, loaded or {})
    gone = removed.ids_of_all(workdir)
    # What learns later has its settings from the workdir, and the trunk from task 1: the file of
    # the weights may be gone.
    stored = loaded is not None
    setup, weights = prepare(
        run, stored=stored, begun=begun, history=history, removed=gone, progress=progress
    )
    if stored:
        setup = dataclasses.replace(setup, origin=workdirs.origin(workdir))
    if not (workdir / "config.json").exists():  # a run of an older version goes on
        setup.method.check()
    return setup, weights


class Experiment:
    """One run. Every process of the run has one `Experiment`."""

    def __init__(
        self,
        setup: Setup,
        workdir: Path,
        checkpoints: Checkpoints,
        reporter: Reporter,
        check_there: Callable[[], None],
        seals: Seals,
        old_images: substitutes.Substitutes,
    ):
        self.setup, self.method, self.data = setup, setup.method, setup.data
        self.workdir, self.checkpoints = workdir, checkpoints
        self.reporter, self._check_there = reporter, check_there
        self._seals = seals
        self._old_images = old_images
        self._lower = Lower(self.method, setup.mesh, self.data, self._progress)
        self.evaluation = self._evaluation()
        self.record = Record(setup, self.evaluation)
        self._optimising = Optimising(
            setup,
            checkpoints,
            reporter,
            self._lower,
            self._sampler,
            self._check_workdir,
            self._progress,
        )
        # Programs that are kept by their method: a task with more room has another one.
        self._surveys: dict[Method, Survey] = {}
        self._times = Times(workdir, reporter.say) if hosts.is_main() else None

    def run(self, memory: Memory, stored: list[int], until: int | None = None) -> dict:
        """Trains and evaluates the tasks that are not done yet; `stored` tasks are trained.

        until: the last task; None = all.
        """
        earlier = Earlier(self.record, self.reporter)
        earlier.load(self.workdir, len(stored), self._seals)
        for task in self.data.stream.tasks[:until]:
            # Stored tasks are restored, all others are trained.
            if task.index in stored:
                memory = restore_task(self.setup, self.checkpoints, memory, task)
            else:
                memory = self.train(memory, task)
            # A process may have been killed after it stored the task and before it wrote the row.
            if task.index > len(self.record.rows):
                self._evaluate(memory, task)
            elif task.index in stored:
                earlier.mend(memory, task)
                self.record.update(memory, task)
        # Something is left only if a process was killed right after it stored the last task. With
        # `until` it may be the state of a later task, which begins there.
        if len(self.record.rows) == len(self.data.stream.tasks):
            self.checkpoints.drop_running()
        results = self.record.results()
        self.reporter.finished(results)
        self._check_workdir()
        return to_json(results)

    def train(self, memory: Memory, task: Task) -> Memory:
        """Trains one task from its start or from its last save, and stores the result."""
        started, method = time.monotonic(), self._method(task)
        before = memory = grown(self.setup, memory, task)
        key = stream_key(self.setup.run.seed, "begin", task.index)
        surveys = isinstance(method, Classifier) and method.surveys(task)
        memory = self._surveyed(memory, task) if surveys else memory
        trainable, frozen = method.begin(memory, task, key)
        # A method that only collects statistics, such as the class means, has no steps.
        if self.setup.steps(task):
            memory, trainable = self._optimising.run(memory, task, trainable, frozen)
        memory = method.end(memory, task, trainable)
        if method.straightens:
            phase = functools.partial(self._optimising.phase, method, STRAIGHTENING)
            memory = straightened(method, memory, task, phase, self._progress)
        memory = self._surveyed(memory, task) if surveys and method.surveys_twice else memory
        # The statistics are those of the final features of the task, so they come after `end`.
        if isinstance(method, Classifier):
            statistics = Statistics(
                self.setup, self._inference(task), self._old_images, self._progress
            )
            memory = statistics.add(before, memory, task)
            memory = self._aligned(memory, task)
        self._check_workdir()
        # In this order: after a kill between the two lines the task counts as trained, and the
        # state inside it is not used again.
        self.checkpoints.save_task(task.index, method.added(memory, task))
        self.checkpoints.drop_running()
        self._note(task, "training_seconds", time.monotonic() - started)
        stopping.check()  # the signal may have arrived after the last step
        return memory

    def _aligned(self, memory: Memory, task: Task) -> Memory:
        """The memory with what its method trains without images at the end of a task."""
        method, run = self.setup.compiled(task), self.setup.run
        if type(method).align is Classifier.align:  # nothing
            return memory
        program = aligned(method, self.setup.mesh)
        with waiting.first_call(program, "the alignment of the head", (run.method, run.model)):
            return {**memory, **program(memory, stream_key(run.seed, "align", task.index))}

    def _surveyed(self, memory: Memory, task: Task) -> Memory:
        """The memory with the sums over the training images of a task."""
        method = self._method(task)
        if method not in self._surveys:
            self._surveys[method] = Survey(method, self.setup.mesh)
        images = self._lower.by_label(memory, self.data.train(task))
        return self._surveys[method].memory(memory, task, images, self._progress)

    def _method(self, task: Task) -> Method:
        """The method with the settings and the room of a task."""
        return self.setup.of_task(task).method

    def _sampler(self, task: Task) -> ClassSampler:
        """The sampler of the memory after a task; training and evaluation share its programs."""
        method, mesh = self.setup.compiled(task), self.setup.mesh
        return ClassSampler(method, self.setup.run.sample, mesh, self.data.noise)

    def _inference(self, task: Task) -> Inference:
        """The features and scores of the memory after a task; its programs are shared, too."""
        return Inference(self.setup.compiled(task), self.setup.mesh, self._lower)

    def _evaluation(self) -> Evaluation:
        if isinstance(self.method, Generator):
            return GeneratorEvaluation(
                self.method,
                self.data,
                self._sampler,
                self.setup.mesh,
                self._progress,
                self.checkpoints,
            )
        # Only one process may write the reference features.
        references = References(self._seals) if hosts.is_main() else None
        return ClassifierEvaluation(
            self.method, self.data, self._inference, self._progress, references
        )

    def _evaluate(self, memory: Memory, task: Task) -> None:
        started = time.monotonic()
        row = self.evaluation.evaluate(memory, task)
        digest = self.data.digest(task)
        images = {} if digest is None else {"images": digest}
        self.record.add(row, {**self._method(task).diagnose(memory, task), **images})
        results = self.record.results()
        self._check_workdir()
        self.reporter.evaluated(task, results, self.evaluation.pictures)
        self._note(task, "evaluation_seconds", time.monotonic() - started)
        self._note(task, "bytes_on_disk", self.checkpoints.bytes_of_task(task.index))
        # This comes last: once it is written, the task counts as evaluated.
        if hosts.is_main():
            self._seals.write(NAME, files.as_json(to_json(results)))

    def _progress(self, label: str, total: int):
        """A progress bar for work that may stop anywhere; a continued run repeats such work."""
        advance = self.reporter.progress(label, total)

        def advance_or_stop(done: int, *values: float) -> None:
            advance(done, *values)
            # A single process stops in its signal handler; several processes stop together here.
            if hosts.stop_now(stopping.received()):
                raise stopping.StoppedError(f"stopped while {label}")

        return advance_or_stop

    def _check_workdir(self) -> None:
        """Raises `ValueError` if the workdir was removed: writing would make another one."""
        with hosts.together():  # only the first process has the lock
            self._check_there()

    def _note(self, task: Task, what: str, value: float) -> None:
        if self._times is not None:
            self._times.note(task.index, what, value)
