"""The seconds of a whole run, from the seconds of its parts and how often it needs each."""

import itertools

from flcl import settings
from flcl.data.sequence.stream import Task
from flcl.evaluate.judge import steps_for
from flcl.evaluate.judging import Judging
from flcl.evaluate.lower import silent
from flcl.flow.sampler import evaluations
from flcl.methods.base import Classifier, Generator
from flcl.runs.planned.fitting import Needs
from flcl.runs.planned.measuring import Measured
from flcl.runs.setup import Setup
from flcl.training import complexity

_TASK = 3.0  # seconds for the saves, pictures and the page of a task, on two CPU cores


def of(setup: Setup, seconds: Measured) -> Needs:
    """The needs of a run after its parts were measured."""
    tasks = setup.data.stream.tasks
    steps = sum(
        setup.steps(task) * seconds.phases[setup.method.phase(task)].each
        for task in tasks
        if setup.steps(task)
    )
    fixed = _rooms(setup, seconds) + _TASK * len(tasks)
    if isinstance(setup.method, Generator):
        return _generator(setup, seconds, steps, fixed)
    return Needs(steps=steps, fixed=fixed + _classifier(setup, seconds))


def _rooms(setup: Setup, seconds: Measured) -> float:
    """Making the programs for every larger room; those of the first ones are there now."""
    larger = max(0, len({setup.compiled(task) for task in setup.data.stream.tasks[1:]}) - 1)
    first = seconds.phases[1].making if 1 in seconds.phases else 0.0
    again = setup.run.method == "guide"  # its programs depend on the lengths
    return larger * (seconds.making - first) + again * seconds.making


def _generator(setup: Setup, seconds: Measured, steps: float, fixed: float) -> Needs:
    run, data, method = setup.run, setup.data, setup.method
    assert isinstance(run, settings.GeneratorRun) and isinstance(method, Generator)
    judging = Judging(run, data, setup.mesh, silent)
    known = [_learned(setup, task) for task in data.stream.tasks]
    counts = [sum(map(judging.plain_count, labels)) for labels in known]
    judge_steps = steps_for(run.judge, counts[-1]) + run.judge.repeats * sum(
        steps_for(run.judge, count) for count in counts
    )
    # Classes that no later task changes are drawn, and compared with real images, only once.
    drawn = known[-1:] if method.old_classes_fixed else known
    chunks = sum(_chunks(run, judging.generated_count(k)) for labels in drawn for k in labels)
    samples = [sum(map(judging.generated_count, labels)) for labels in known]
    compared = sum(samples) + (samples[-1] if method.old_classes_fixed else sum(samples))
    tested = [_test_images(setup, task) for task in data.stream.tasks]
    real = run.judge.repeats * sum(tested) + 2 * tested[-1] + sum(judging.counts.values())
    return Needs(
        steps=steps,
        judging=judge_steps * seconds.judge.each,
        drawing=chunks * seconds.chunk.each + compared * seconds.judged.each,
        fixed=fixed
        + real * seconds.judged.each
        + _replay(run, judging, known, seconds)
        + _straight_paths(setup, seconds),
    )


def _replay(run, judging: Judging, known: list[list[int]], seconds: Measured) -> float:
    """Generating the images of old classes before each later task, if the method does that."""
    if not isinstance(run, settings.ReplayRun):
        return 0.0
    counts = {k: run.replay.images_per_class or judging.counts[k] for k in known[-1]}
    old = itertools.chain.from_iterable(known[:-1])
    return sum(_chunks(run, counts[label]) for label in old) * seconds.chunk.each


def _straight_paths(setup: Setup, seconds: Measured) -> float:
    """The stage after every task that makes paths straight, if the method has one.

    Its steps and programs are taken for those of the other phases, which were measured.
    """
    run, tasks = setup.run, setup.data.stream.tasks
    if not setup.method.straightens:
        return 0.0
    assert isinstance(run, settings.FunLoRARun)
    step = seconds.phases[2 if 2 in seconds.phases else 1]
    longer = evaluations(run.straighten.teacher) / (evaluations(run.sample) or 1)
    chunks = _chunks(run, run.straighten.pairs) * sum(len(task.labels) for task in tasks)
    drawing = max(1.0, longer) * chunks * seconds.chunk.each
    steps = len(tasks) * run.straighten.steps * step.each
    return step.making + seconds.chunk.making + steps + drawing


def _chunks(run: settings.GeneratorRun, images: int) -> int:
    return -(-images // run.sample.chunk)


def _classifier(setup: Setup, seconds: Measured) -> float:
    """Everything but the steps: passes over images, heads, alignment and short runs."""
    data, method = setup.data, setup.method
    assert isinstance(method, Classifier)
    total = 0.0
    for task in data.stream.tasks:
        images = sum(data.images(task).train)
        passes = images * (3 if method.corrects(task) else 1) + _test_images(setup, task)
        total += passes * seconds.features.each + seconds.heads.each + seconds.align.each
        kept = images + sum(data.images(task).test)
        total += kept * seconds.lower.each
        surveys = (1 + method.surveys_twice) if method.surveys(task) else 0
        total += surveys * images * seconds.survey.each
        if (short := method.preliminary(task)) is not None:
            trained = round((1 - short.holdout) * images)
            batch = method.run.train.batch_size
            each = seconds.phases[method.phase(task)].each
            total += complexity.steps(short, trained, batch) * each
            total += short.holdout * images * seconds.features.each
    return total


def _learned(setup: Setup, task: Task) -> list[int]:
    """The labels that are learned after a task."""
    tasks = setup.data.stream.tasks[: task.index]
    return sorted({label for each in tasks for label in each.labels})


def _test_images(setup: Setup, task: Task) -> int:
    """The test images of all groups that are learned after a task."""
    stream = setup.data.stream
    groups = stream.groups if stream.joint else stream.groups[: task.index]
    return sum(sum(setup.data.images(group).test) for group in groups)
