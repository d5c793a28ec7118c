"""Takes classes of a generator in from files: see `flcl.adapters.artifact`."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from flcl import files as whole_files
from flcl import hints
from flcl.adapters.artifact import ClassFile
from flcl.data.sequence.learned import LearnedTask, check_alike
from flcl.data.sequence.stream import Task
from flcl.data.sequence.tasks import Counts, TaskData
from flcl.runs.later.sources import IMPORTED, remembered
from flcl.runs.memory import grown
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.stored import STREAM, read_stream, typed_stream
from flcl.runs.setup import Setup
from flcl.storage import paths
from flcl.storage.seals import Seals


class _Named(NamedTuple):
    """A class file and the name that its class gets."""

    path: Path
    file: ClassFile
    name: str


def import_classes(
    workdir: str | Path,
    files: Sequence[str | Path],
    names: Mapping[str, str] | None = None,
    *,
    distinct: Sequence[str] = (),
) -> tuple[str, ...]:
    """Takes classes into a run; see `GeneratorOnDisk.import_classes`. It either happens or not.

    distinct: new names that differ from a known one only in case or Unicode form. If the process
    is killed, the same call ends the work.
    """
    workdir = paths.local(workdir, "workdir")
    files = [files] if isinstance(files, str | Path) else list(files)
    with workdirs.locked(workdir):
        run = GeneratorOnDisk(workdir)
        classes = _named(run, files, names or {})
        planned, others = _places(run, classes)
        data = _data(run, others, distinct)
        setup = Setup(run.settings, data, None, run._mesh)
        if others:  # from here on the new task has begun
            stream = whole_files.as_json(data.to_dict())
            Seals(workdir).write(STREAM, stream)
            planned = [*planned, (data.stream.tasks[-1], others)]
        _store(run, setup, planned)
    return tuple(each.name for each in classes)


def _named(run: GeneratorOnDisk, files: Sequence, names: Mapping[str, str]) -> list[_Named]:
    """The checked files with the names that their classes get."""
    if not files:
        raise ValueError("files: none were given; at least one class file is needed")
    classes = []
    for path in files:
        file = run.read_class(path)
        classes.append(_Named(Path(path), file, names.get(file.about.name, file.about.name)))
    there = {each.file.about.name for each in classes}
    for name in names:
        if name not in there:
            raise ValueError(
                f"names={hints.quoted(name)}: no file has a class of this name; they have "
                f"{', '.join(map(hints.quoted, sorted(there)))}"
            )
    given = [each.name for each in classes]
    for each in classes:
        if given.count(each.name) > 1:
            raise ValueError(
                f"{each.path}: class {hints.quoted(each.name)} comes twice; give one of them "
                "another name"
            )
        if not each.name.strip() or len(each.name) > 200:
            raise ValueError(f"{each.path}: {hints.quoted(each.name)} is no name for a class")
    return classes


def _places(
    run: GeneratorOnDisk, classes: list[_Named]
) -> tuple[list[tuple[Task, list[_Named]]], list[_Named]]:
    """The next planned tasks with their classes, and the classes that no task has planned."""
    by_name = {each.name: each for each in classes}
    learned = {name for name in by_name if _is_learned(run, name)}
    if learned:
        name = min(learned)
        if run.removed.of(run.class_names.index(name)) is not None:
            raise ValueError(
                f"{by_name[name].path}: class {hints.quoted(name)} was removed from this run; give "
                "it another name to take it in as a new class"
            )
        raise ValueError(
            f"{by_name[name].path}: this run knows the class {hints.quoted(name)} already; give it "
            "another name"
        )
    planned = []
    for task in run.stream.tasks[len(run.learned) :]:
        needed = [run.class_names[run.stream.class_order[label]] for label in task.labels]
        found = [by_name.pop(name) for name in needed if name in by_name]
        if not found:
            continue
        missing = [name for name in needed if name not in {each.name for each in found}]
        if missing:
            raise ValueError(
                f"task {task.index}: its classes come together, and no file has "
                f"{', '.join(map(hints.quoted, missing))}"
            )
        expected = len(run.learned) + len(planned) + 1
        if task.index != expected:
            raise ValueError(
                f"task {task.index}: task {expected} comes before it; import its classes, too, or "
                "train it first"
            )
        for each, label in zip(found, task.labels, strict=True):
            if each.file.about.label != label:
                raise ValueError(
                    f"{each.path}: it is class {each.file.about.label} of its run, and class "
                    f"{label} of this one: give it a name that is not planned"
                )
        planned.append((task, found))
    others = [each for each in classes if each.name in by_name]
    if others and len(run.learned) + len(planned) < len(run.stream.tasks):
        raise ValueError(
            f"workdir {run.workdir} has tasks that are not learned yet: finish them, or import "
            f"their classes; then it can take in {hints.quoted(others[0].name)}"
        )
    return planned, others


def _is_learned(run: GeneratorOnDisk, name: str) -> bool:
    return name in run.class_names and run.task_of(run.class_names.index(name)) is not None


def _data(run: GeneratorOnDisk, others: list[_Named], distinct: Sequence[str]) -> TaskData:
    """The tasks of the run, and one more with the classes that none has planned."""
    data = remembered(run.settings, typed_stream(read_stream(run.workdir)))
    if not others:
        return data
    if data.stream.joint:
        raise ValueError(f"workdir {run.workdir} has a joint run: it has its one task for ever")
    names = tuple(each.name for each in others)
    check_alike("files", names, data.names, distinct)
    task = LearnedTask(
        IMPORTED,
        class_names=names,
        date=datetime.date.today().isoformat(),
        noise=tuple(each.file.about.label for each in others),
    )
    nothing = (0,) * len(names)
    return data.with_task(task, Counts(nothing, nothing))


def _store(run: GeneratorOnDisk, setup: Setup, planned: list[tuple[Task, list[_Named]]]) -> None:
    """Stores each task as if it had been trained here."""
    memory, folder = run._memory(run.learned[-1]), run.workdir / "checkpoints"
    seals = Seals(run.workdir)
    with jax.set_mesh(run._mesh), Checkpoints(folder, seals=seals) as checkpoints:
        for task, classes in planned:
            method, memory = setup.of_task(task).method, grown(setup, memory, task)
            for label, each in zip(task.labels, classes, strict=True):
                memory = method.with_factors(memory, label, each.file.factors)
            checkpoints.save_task(task.index, method.added(memory, task))
        checkpoints.drop_running()
