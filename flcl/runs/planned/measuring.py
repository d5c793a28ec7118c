"""The seconds of the parts of a run on this machine, each measured on a few calls.

The parts are the run's own programs with its own images; the network has its first values. Every
process of a run makes the same calls.
"""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from flcl import settings
from flcl.data import loader
from flcl.data.selection import Selection, joined
from flcl.data.sequence.stream import Task
from flcl.devices import hosts, sharding
from flcl.evaluate.features import Inference
from flcl.evaluate.judging import Judging
from flcl.evaluate.lower import Lower, silent
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Classifier, Generator, Memory
from flcl.rng import stream_key
from flcl.runs.memory import empty_memory, grown
from flcl.runs.setup import Setup
from flcl.training.loop import TaskTraining
from flcl.training.step import aligned, phase_of
from flcl.training.survey import Survey

_FEW, _MOST, _LONG = 3, 40, 2.0
"""Calls that give a first idea, the most calls, and the seconds that they take together."""
_ENDLESS = 10**6  # steps: no measurement makes as many


class Seconds(NamedTuple):
    """`making`: of the first call alone, which traces and compiles; `each`: of every call."""

    making: float = 0.0
    each: float = 0.0


def seconds_of(repeat: Callable[[int], object], clock=time.perf_counter) -> Seconds:
    """Measures `repeat`, which gets a number of calls and makes them."""

    def timed(count: int) -> float:
        start = clock()
        jax.block_until_ready(repeat(count))
        return clock() - start

    first, few = timed(1), timed(_FEW) / _FEW
    # One number for all processes, because a program of several devices waits for all of them.
    count = hosts.from_main(int(min(_MOST, _LONG / max(few, 1e-6))))
    each = timed(count) / count if count > _FEW else few
    return Seconds(max(0.0, first - each), each)


class Measured(NamedTuple):
    """The seconds of a run's parts; those that it lacks are 0.

    phases: of a step of each phase. chunk: of the sampler. judge: of a step of the judge; judged:
    of an answer of the judge to one image. features, lower: of one image. survey: of one image;
    heads: of statistics, solving and scores of one batch; align: of the alignment after a task.
    """

    phases: Mapping[int, Seconds]
    chunk: Seconds = Seconds()
    judge: Seconds = Seconds()
    judged: Seconds = Seconds()
    features: Seconds = Seconds()
    lower: Seconds = Seconds()
    survey: Seconds = Seconds()
    heads: Seconds = Seconds()
    align: Seconds = Seconds()

    @property
    def making(self) -> float:
        """Seconds to make all programs once."""
        return sum(each.making for each in [*self.phases.values(), *self[1:]])


def measure(setup: Setup, advance: Callable[[int], None]) -> Measured:
    """Measures the parts of a run. advance: called with the number of finished parts of `PARTS`."""
    parts = _Parts(setup)
    firsts: dict[int, Task] = {}
    for task in setup.data.stream.tasks:
        if setup.steps(task):
            firsts.setdefault(setup.method.phase(task), task)
    done = 0

    def counted(function: Callable[..., Seconds], *arguments) -> Seconds:
        nonlocal done
        seconds, done = function(*arguments), done + 1
        advance(done)
        return seconds

    phases = {phase: counted(parts.steps, task) for phase, task in firsts.items()}
    names = parts.names()
    return Measured(phases, **{name: counted(getattr(parts, name)) for name in names})


def count_of(setup: Setup) -> int:
    """The number of parts of a run that `measure` measures."""
    tasks = [task for task in setup.data.stream.tasks if setup.steps(task)]
    return len({setup.method.phase(task) for task in tasks}) + len(_Parts(setup).names())


class _Parts:
    """The parts of one run, each as a function that measures it."""

    def __init__(self, setup: Setup):
        self._setup, self._mesh, self._data = setup, setup.mesh, setup.data
        self._first = setup.data.stream.tasks[0]
        self._key = stream_key(setup.run.seed, "measurement")

    @functools.cached_property
    def _memory(self) -> Memory:
        return empty_memory(self._setup)

    def names(self) -> list[str]:
        """The parts beside the training steps, in the order in which they are measured."""
        method = self._setup.method
        if isinstance(method, Generator):
            return ["chunk", "judge", "judged"]
        assert isinstance(method, Classifier)
        names = ["lower"] if method.kept_blocks else []
        if any(method.surveys(task) for task in method.stream.tasks):
            names.append("survey")
        aligns = jax.eval_shape(method.align, self._abstract, self._key)
        return [*names, "features", "heads", *(["align"] if aligns else [])]

    @functools.cached_property
    def _abstract(self) -> Memory:
        return jax.eval_shape(self._setup.method.init, self._key)

    def steps(self, task: Task) -> Seconds:
        """Optimiser steps of a task, on the batches that its loader prepares."""
        method = self._setup.compiled(task)
        memory = grown(self._setup, self._memory, task)
        trainable, frozen = method.begin(memory, task, self._key)
        phase = phase_of(method, method.phase(task), trainable, frozen, self._mesh)
        frozen = sharding.place(frozen, self._mesh, method.divides)
        state, runtime = phase.create(trainable, _ENDLESS), method.run.runtime
        batches = method.batches(task, self._images(task, memory), hosts.shard())

        def train(count: int):
            nonlocal state
            done, count = int(state.step), count * phase.per_call
            training = TaskTraining(
                name="the measurement",
                steps=sys.maxsize,
                key=self._key,
                remedy=method.remedy(phase.index),
                log_every=count,
                save_every=sys.maxsize,
            )
            options = {"threads": runtime.threads, "prefetch": runtime.prefetch}
            source = loader.iterate(batches, done, done + count, **options)
            state = training.run(phase, state, frozen, source)
            return state

        seconds = seconds_of(train)
        return Seconds(seconds.making, seconds.each / phase.per_call)

    def _images(self, task: Task, memory: Memory) -> Mapping[int, Selection]:
        """The training images of a task; black ones for those that replay would generate."""
        data = self._setup.run.data

        def black(_memory, _label: int, count: int) -> np.ndarray:
            return np.zeros((count, data.image_size, data.image_size, data.channels), np.uint8)

        method = self._setup.compiled(task)
        real = self._data.train(task)
        if isinstance(method, Classifier) and method.kept_blocks:
            real = self._lower.by_label(memory, self._some(task, method.run.train.batch_size))
        return method.training_images(task, real, memory, black)

    @functools.cached_property
    def _lower(self) -> Lower:
        return Lower(self._setup.method, self._mesh, self._data)

    def _some(self, task: Task, count: int) -> dict[int, Selection]:
        """About `count` training images of a task."""
        images = {k: each for k, each in self._data.train(task).items() if len(each)}
        each_label = -(-count // len(images))
        return {
            k: Selection(each.images, np.asarray(each.indices)[:each_label])
            for k, each in images.items()
        }

    def chunk(self) -> Seconds:
        """The sampler: one chunk of images of a class."""
        run = self._setup.run
        assert isinstance(run, settings.GeneratorRun)
        method = self._setup.compiled(self._first)
        sampler = ClassSampler(method, run.sample, self._mesh)
        label = self._first.labels[0]
        count = run.sample.chunk
        return seconds_of(
            lambda n: [sampler.one_class(self._memory, self._key, label, count) for _ in range(n)]
        )

    @functools.cached_property
    def _judge(self):
        return Judging(self._setup.run, self._data, self._mesh, silent).judge(1)

    def judge(self) -> Seconds:
        """Steps of the judge, on the real images of the first task."""
        images = joined(self._data.train(self._first))
        return seconds_of(lambda n: self._judge.train(images, steps=n, seed_name="measurement"))

    def judged(self) -> Seconds:
        """Answers of the judge to an image, in full batches."""
        size = self._setup.run.judge.batch_size
        images = joined(self._some(self._first, size))
        variables = self._judge.train(images, steps=1, seed_name="measurement")
        seen = np.ones(self._judge.num_classes, bool)
        answered = Selection(images.images, np.resize(images.indices, size))
        seconds = seconds_of(
            lambda n: [self._judge.predict(variables, answered, seen) for _ in range(n)]
        )
        return Seconds(seconds.making, seconds.each / size)

    def lower(self) -> Seconds:
        """The blocks whose outputs are kept, for one image."""
        images = self._some(self._first, self._setup.run.train.eval_batch_size)

        def compute(count: int) -> None:
            for _ in range(count):
                Lower(self._setup.method, self._mesh, self._data).by_label(self._memory, images)

        return _for_each(compute, len(joined(images)))

    def survey(self) -> Seconds:
        """The sums before a task, for one image."""
        images = self._some(self._first, 2 * self._setup.run.train.batch_size)
        method = self._setup.compiled(self._first)
        survey = Survey(method, self._mesh)
        images = self._lower.by_label(self._memory, images)
        call = functools.partial(survey.memory, self._memory, self._first, images, silent)
        return _for_each(lambda n: [call() for _ in range(n)], len(joined(images)))

    @functools.cached_property
    def _inference(self) -> Inference:
        return Inference(self._setup.compiled(self._first), self._mesh, self._lower)

    @functools.cached_property
    def _batch(self) -> Selection:
        return joined(self._some(self._first, self._setup.run.train.eval_batch_size))

    def features(self) -> Seconds:
        """The features of an image, in full batches."""
        call = functools.partial(self._inference.features, self._memory, self._batch)
        return _for_each(lambda n: [call() for _ in range(n)], len(self._batch))

    def heads(self) -> Seconds:
        """Statistics of a batch, the heads that they give, and the scores of the batch."""
        method = self._inference.method
        assert isinstance(method, Classifier)
        features = self._inference.features(self._memory, self._batch)
        labels, scores = self._batch.labels, self._inference.scores

        def calibrate(count: int) -> None:
            for _ in range(count):
                memory = method.calibrate(self._memory, self._first, features, labels, None, scores)
                scores(method.solved(memory), features)

        return seconds_of(calibrate)

    def align(self) -> Seconds:
        """The training of the head without images after a task."""
        program = aligned(self._inference.method, self._mesh)
        return seconds_of(lambda n: [program(self._memory, self._key) for _ in range(n)])


def _for_each(repeat: Callable[[int], object], images: int) -> Seconds:
    """The seconds of one of the `images` that each call of `repeat` works on."""
    seconds = seconds_of(repeat)
    return Seconds(seconds.making, seconds.each / images)
