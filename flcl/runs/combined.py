"""A generator and a classifier that learn the same classes, task by task.

The generator is trained first, all its tasks, and then the classifier: in its task t it uses the
generator as that was after task t - 1, so both know the same classes at that moment. Learned
classes of the generator never change, so the classifier gets the same as if both had gone on in
turns.
"""

from collections.abc import Callable
from pathlib import Path

from flcl import settings
from flcl.data.encoded.check import Progress, silent
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts
from flcl.runs import experiment
from flcl.runs.saved import removed
from flcl.runs.saved import workdir as workdirs
from flcl.runs.setup import prepare
from flcl.runs.statistics import substitutes


def run(
    both: settings.Combined,
    workdir: str | Path,
    make_reporter: Callable[[Path, settings.Run], experiment.Reporter],
    progress: Progress = silent,
) -> dict:
    """Trains both runs, or continues them; returns the `results.json` of each by its name.

    They are in the folders `generator` and `classifier` of `workdir`. See `experiment.run` for the
    arguments and errors. Both are checked before the first is trained: `ValueError` also for
    classes or tasks that differ.
    """
    places = {name: Path(workdir) / name for name in settings.PARTS}
    _check(both, places, progress)
    runs = {
        "generator": both.generator,
        "classifier": both.with_generator(str(places["generator"])),
    }
    return {
        name: experiment.run(each, places[name], make_reporter, progress)
        for name, each in runs.items()
    }


def _check(both: settings.Combined, places: dict[str, Path], progress: Progress) -> None:
    """Raises `ValueError` for runs that cannot be prepared or that learn other classes."""
    data = {}
    with hosts.together():
        for name in settings.PARTS:
            try:
                begun = workdirs.begun(places[name])
                gone = removed.ids_of_all(places[name])
                known = {"begun": begun, "removed": gone}
                setup, _ = prepare(getattr(both, name), **known, progress=progress)
                setup, _ = substitutes.prepare(setup, progress)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            data[name] = setup.data
    for number, (one, other) in enumerate(zip(*map(_classes, data.values()), strict=False), 1):
        if one != other:
            raise ValueError(
                f"generator and classifier must learn the same classes in the same tasks: in task "
                f"{number} the generator learns {_listed(one)}, the classifier {_listed(other)}; "
                "change their keys of data or stream"
            )
    generator, classifier = (len(each.stream.tasks) for each in data.values())
    if generator != classifier:
        raise ValueError(
            f"generator and classifier must learn the same classes in the same tasks: {generator} "
            f"and {classifier} tasks; change their keys of data or stream"
        )


def _classes(data: TaskData) -> list[set[str]]:
    """The names of the classes of each task."""
    names, stream = data.class_names(), data.stream
    return [{names[label] for label in task.labels} for task in stream.tasks]


def _listed(names: set[str]) -> str:
    some = sorted(names)
    return ", ".join(some[:5]) + (" and more" if some[5:] else "")
