"""The images of a run: those of the planned tasks, and those of each task that was learned later.

Old images may be gone. A task that is stored needs none to train, sample or classify; it is only
not tested any more.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from flcl import settings
from flcl.data import base
from flcl.data.base import Begun, Source
from flcl.data.encoded.check import Progress
from flcl.data.sequence.learned import LearnedTask, in_run
from flcl.data.sequence.stream import TaskStream, make_stream
from flcl.data.sequence.tasks import TaskData
from flcl.data.sources import load_source
from flcl.runs.saved.stored import History, StoredStream, StoredTask
from flcl.settings.later import changed_run

IMPORTED = "class files"
"""The source of a task whose classes were imported."""


def load(
    run: settings.Run, begun: Begun | None, history: History | None, progress: Progress
) -> tuple[TaskData, list[str]]:
    """The images of every task, and a line about each source that is not here any more.

    history: what the workdir says; None = no task was learned that was not planned. Raises
    `ValueError` for data of a task that still trains and cannot be read, and `OSError` for a file
    that cannot be read now.
    """
    if history is None:
        planned = _planned(run, begun, progress)
        return planned, []
    data = remembered(run, history.stored)
    data, notes = _with_planned(run, begun, data, progress)
    for number in range(data.planned + 1, len(data.stream.tasks) + 1):
        task = history.loaded.get(number)
        try:
            task = task or _later(run, data, history.stored.tasks[number - 1], number, progress)
            data = _with_later(data, number, task)
        except ValueError as error:
            if number > history.finished:
                raise
            notes.append(f"task {number} is not tested any more: {error}")
    return data, notes


def remembered(run: settings.Run, stored: StoredStream) -> TaskData:
    """Everything that `stream.json` says of the tasks of a run; no image is read.

    Raises `ValueError` for a run of domains whose images an older version did not count by task.
    """
    later = [task for task in stored.tasks if task.learned]
    classes = sum(len(task.classes) for task in later if not task.domain)
    domains = sum(bool(task.domain) for task in later)
    names = stored.class_names[: len(stored.class_names) - classes]
    domain_names = stored.domain_names[: len(stored.domain_names) - domains]
    nothing = base.make_split(np.zeros((0, 1, 1, 1), np.uint8), [])
    source = Source(
        run.data.source, nothing, nothing, names, domain_names, **_choice(stored.others)
    )
    stream = TaskStream(**dataclasses.asdict(stored.stream))
    counts = {number: stored.counts(number) for number in range(1, len(stream.sizes) + 1)}
    if None in counts.values():
        raise ValueError(
            f"{run.data.source}: a run of an older version that did not count the images of each "
            "domain; repeat the command that trained it once, which counts them"
        )
    learned = tuple(
        LearnedTask(
            spec=task.source,
            class_names=() if task.domain else task.classes,
            domain_name=task.domain,
            changed=task.changed or {},
            date=task.learned,
            noise=task.noise or (),
            **_choice(task.others),
        )
        for task in later
    )
    return TaskData(source, stream, learned, counts, run.data.source)


def _choice(others: Mapping[str, Any]) -> dict:
    """How a source chose its images: `split_rule` and `skipped` of `Source`."""
    skipped, rule = others.get("skipped"), others.get("split", "")
    files = tuple(map(str, skipped.get("files", ()))) if isinstance(skipped, dict) else None
    return {"split_rule": str(rule), "skipped": files}


def _planned(run: settings.Run, begun: Begun | None, progress: Progress) -> TaskData:
    source = load_source(run.data, threads=run.runtime.threads, begun=begun, progress=progress)
    return TaskData(source, make_stream(run.stream, source, begun), spec=run.data.source)


def _with_planned(
    run: settings.Run, begun: Begun | None, data: TaskData, progress: Progress
) -> tuple[TaskData, list[str]]:
    """`data` with the images of its planned tasks, if they are here and are still the same."""
    numbers = range(1, data.planned + 1)
    reason = f"{run.data.source} has other images now"
    try:
        planned = _planned(run, begun, progress)
        found = [planned.images(task) for task in planned.stream.tasks]
        same_names = planned.source.class_names == data.source.class_names
        if same_names and found == [data.counts[number] for number in numbers]:
            left = {k: v for k, v in data.counts.items() if k not in numbers}
            return dataclasses.replace(data, source=planned.source, counts=left), []
    except ValueError as error:
        reason = str(error)
    tasks = "task 1 is" if data.planned == 1 else f"tasks 1-{data.planned} are"
    return data, [f"{tasks} not tested any more: {reason}"]


def _later(
    run: settings.Run, data: TaskData, entry: StoredTask, number: int, progress: Progress
) -> LearnedTask:
    """A task that was not planned, with its images; they are chosen as when it began."""
    remembered_task = data.learned[number - data.planned - 1]
    if entry.source == IMPORTED:
        raise ValueError("its classes were imported, without images")
    chosen = Begun(remembered_task.skipped or (), remembered_task.split_rule)
    place = dataclasses.replace(
        changed_run(run, remembered_task.changed).data, source=remembered_task.spec
    )
    source = load_source(place, threads=run.runtime.threads, begun=chosen, progress=progress)
    known = [name for name in source.class_names if name in data.names]
    domain = 0
    if entry.domain:
        domain = data.domain_names.index(entry.domain)
    used = known if entry.domain else entry.classes
    source = in_run(source, data.names, domain, used)
    return dataclasses.replace(remembered_task, source=source)


def _with_later(data: TaskData, number: int, task: LearnedTask) -> TaskData:
    """`data` with the images of one task; `ValueError` if they are not those that it had."""
    place = number - data.planned - 1
    learned = (*data.learned[:place], task, *data.learned[place + 1 :])
    left = {k: v for k, v in data.counts.items() if k != number}
    longer = dataclasses.replace(data, learned=learned, counts=left)
    if longer.images(data.stream.tasks[number - 1]) != data.counts[number]:
        raise ValueError(f"{task.spec} has other images now")
    return longer
