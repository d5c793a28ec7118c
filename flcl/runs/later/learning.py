"""Adds a task that was not planned to a run, and learns it: the run goes on after its end."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flcl import files, hints, settings
from flcl.data.encoded.check import Progress, silent
from flcl.data.sequence.learned import LearnedTask, matched
from flcl.data.sequence.tasks import TaskData
from flcl.data.sources import load_source
from flcl.devices import hosts
from flcl.runs import experiment
from flcl.runs.later.sources import remembered
from flcl.runs.opened.run import read
from flcl.runs.reporter import Reporter
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.stored import (
    STREAM,
    StoredStream,
    earlier_results,
    read_stream,
    typed_stream,
)
from flcl.settings.later import changed_run, differing, with_free
from flcl.storage.seals import Seals


def learn(
    workdir: str | Path,
    spec: str,
    changed: Mapping[str, object],
    make_reporter: Callable[[Path, settings.Run], Reporter],
    progress: Progress = silent,
    *,
    distinct: Sequence[str] = (),
) -> dict:
    """Learns the next task of a run from a source of its own; returns `results.json`.

    The same call continues one that was killed. It needs no image of an earlier task; a task whose
    images are not there any more is not tested.

    Args:
      spec: the source, in the form of `data.source`. Its classes that the run does not know are the
        new task; with `stream.scenario=dil` it is the next domain.
      changed: the keys that differ for this task, dotted name -> value.
      distinct: names of new classes that differ from a known one only in case or Unicode form.

    Raises:
      ValueError: in one line, if there is nothing new, for images of another kind, for a run that
        is joint, unfinished or training right now, and for keys that belong to all tasks; and for
        all that `experiment.run` raises it for.
    """
    workdir, longer = Path(workdir), None
    # Refused now if the run is training, and not after all images are read. Alone in its block: an
    # error of one process must not meet an exchange of the others.
    with hosts.together():
        read(workdir)
        if hosts.is_main():
            with workdirs.locked(workdir):
                pass
    with hosts.together():
        state = _state(workdir) if hosts.is_main() else None
        run, values = read(workdir)
        stored, task_run = typed_stream(values), changed_run(run, changed)
        decisive = _plain(differing(run, task_run))
        if not _has_begun(workdir, stored, spec, decisive):
            data = _without_unbegun(workdir, remembered(run, stored))
            task = _next_task(task_run, data, spec, distinct, progress)
            longer = data.with_task(dataclasses.replace(task, changed=decisive, date=_today()))
    # Every process has read the stream before the first one changes it.
    with hosts.together():
        if longer and hosts.is_main():
            _add(workdir, longer, state)
    # The same command reads the images again if it continues the task.
    run = with_free(run, task_run)
    loaded = {len(longer.stream.tasks): longer.learned[-1]} if longer else {}
    return experiment.run(run, workdir, make_reporter, progress, loaded)


def _today() -> str:
    return datetime.date.today().isoformat()


def _plain(values: Mapping[str, object]) -> dict:
    """Values as they are read from JSON again."""
    return json.loads(json.dumps(dict(values)))


def _has_begun(
    workdir: Path, stored: StoredStream, spec: str, changed: Mapping[str, object]
) -> bool:
    """Whether the workdir already has this task and it is not complete.

    Raises `ValueError` if the run cannot learn now.
    """
    if stored.stream.joint:
        raise ValueError(
            f"workdir {workdir} has a joint run, which learns all classes in its one task: train "
            "one with stream.joint=False"
        )
    total, done = len(stored.stream.sizes), workdirs.finished(workdir)
    newest = stored.tasks[-1] if stored.tasks else None
    if newest is None or not newest.learned:
        if done < total:
            raise ValueError(
                f"workdir {workdir} has finished {done} of its {total} planned tasks: repeat the "
                "command that trained it, which continues it; then it can learn more"
            )
        return False
    same = newest.source == spec and (newest.changed or {}) == changed
    if done == total:
        results, _ = earlier_results(workdir, Seals(workdir, writes=False))
        return same and not (results and results["complete"] and len(results["tasks"]) == total)
    if not same and workdirs.has_saves(workdir, ("running",)):
        raise ValueError(
            f"workdir {workdir} has begun task {total} from {newest.source} and has not finished "
            f"it: learn that first, with the same command (changed keys: "
            f"{hints.brief(str(dict(newest.changed or {})) or 'none')})"
        )
    return same


def _without_unbegun(workdir: Path, data: TaskData) -> TaskData:
    """The tasks without a newest one of which nothing is saved: it did not happen."""
    begun = workdirs.finished(workdir) == len(data.stream.tasks)
    return data if begun else data.without_newest()


def _next_task(
    run: settings.Run,
    data: TaskData,
    spec: str,
    distinct: Sequence[str],
    progress: Progress,
) -> LearnedTask:
    """The new task with its images. run: with the changed keys."""
    place = dataclasses.replace(run.data, source=spec)
    try:
        source = load_source(place, threads=run.runtime.threads, progress=progress)
    except ValueError as error:
        # The name that a caller knows.
        raise ValueError(str(error).replace("data.source=", "data=", 1)) from None
    return matched(spec, source, data.stream, data.names, data.domain_names, distinct)


def _state(workdir: Path) -> tuple:
    """The tasks and saves of a workdir: another process may learn while images are read."""
    saves = (workdir / "checkpoints").glob("*/[0-9]*")
    return read_stream(workdir), sorted(map(str, saves))


def _add(workdir: Path, longer: TaskData, state: tuple) -> None:
    """Writes the tasks with a new one into `stream.json`. From then on it has begun.

    Raises `ValueError` if the workdir has not the `state` any more from which the task was made.
    """
    with workdirs.locked(workdir):
        if _state(workdir) != state:
            raise ValueError(
                f"workdir {workdir} has learned something else since this began: repeat the command"
            )
        Seals(workdir).write(STREAM, files.as_json(longer.to_dict()))
