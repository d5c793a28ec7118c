"""A run on disk, opened for use. It needs only its workdir, and the data for an evaluation."""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flcl import files, hints, methods, settings
from flcl.data.sequence.learned import LearnedTask
from flcl.data.sequence.stream import Task, TaskStream
from flcl.data.sequence.tasks import TaskData
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.methods.base import Memory
from flcl.runs import results as result_files
from flcl.runs.memory import empty_memory, restore_task, stored_tasks
from flcl.runs.record import Evaluation, Record
from flcl.runs.results import Results, to_json
from flcl.runs.saved import removed
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.saved.stored import STREAM, read_stream, typed_stream
from flcl.runs.setup import Setup, check_judge, prepare, use_compile_cache
from flcl.settings import bridge, formats
from flcl.settings.generator.factors import FOUND_LAYERS
from flcl.settings.ids import listed
from flcl.storage import foreign
from flcl.storage.seals import Seals, digest

_ADVICE = (
    "bring a good copy back, or repeat the command that trained the run, which writes it again"
)


_OTHERS = {
    "sample": "only a generator draws images",
    "classify": "only a classifier classifies images",
    "classify_files": "only a classifier classifies images",
    "features": "only a classifier has features",
    "evaluate_on": "only a classifier is tested on other images",
}


class ClassEntry(NamedTuple):
    """A class of a run.

    Attributes:
      id: its class id in the data set.
      name: its name.
      task: the newest learned task that trained it; None = it is not learned yet.
      parameters: float32 numbers that belong to it alone; None = all classes share everything, or
        it is a class of a classifier.
      bytes: those of its parameters; None as for `parameters`.
      removed: the day on which it was removed; None = it was not.
    """

    id: int
    name: str
    task: int | None
    parameters: int | None
    bytes: int | None
    removed: str | None


class Acts(NamedTuple):
    """What changes a run on disk; each function gets the workdir first."""

    learn: Callable
    learn_only: Callable
    import_classes: Callable
    remove_classes: Callable


class Run:
    """A finished or interrupted run.

    Attributes:
      kind: "generator" or "classifier".
      workdir: the folder of the run.
      settings: the settings of the run.
      stream: the classes and tasks of the run.
      class_names: the names of the classes, by class id of the data set.
      learned: the numbers of the tasks that are learned.
      removed: the classes that were removed.
    """

    kind: typing.ClassVar[str] = "run"

    def __init__(
        self,
        workdir: str | Path,
        *,
        compile_cache: bool = True,
        removing: bool = False,
        acts: Acts | None = None,
    ):
        """Opens a run; removing: also one from which the removal of a class was stopped.

        compile_cache: False = the run that opens this one has chosen where programs are kept.
        acts: what may change it; None = the run is only read.
        """
        self.workdir, self._acts = Path(workdir), acts
        self.settings, stream = read(self.workdir, removing=removing)
        if compile_cache:
            # The cache of this user. A folder that the run names may have programs of others.
            use_compile_cache(settings.Runtime())
        self.class_names = tuple(stream["class_names"])
        self.stream = TaskStream.from_dict(stream["stream"])
        # Read only, because another process may still be training this run.
        self._seals = Seals(self.workdir, writes=False)
        self.removed = removed.read(self.workdir, self._seals, removing=removing)
        folder = self.workdir / "checkpoints"
        self._checkpoints = Checkpoints(folder, read_only=True, seals=self._seals)
        self.learned = tuple(stored_tasks(self._checkpoints, self.stream))
        if not self.learned:
            raise ValueError(f"workdir {workdir} has not finished its first task yet")
        # A run may be opened on fewer devices than it was trained on.
        self._mesh = meshes.make_mesh(math.gcd(self.settings.runtime.fsdp, jax.device_count()))
        hosts.connect(self._mesh)
        # Inference needs no data: only evaluation loads the source.
        later = (task for task in typed_stream(stream).tasks if task.learned)
        learned = tuple(
            LearnedTask(t.source, changed=t.changed or {}, noise=t.noise or ()) for t in later
        )
        setup = Setup(self.settings, TaskData(None, self.stream, learned), None, self._mesh)
        newest = setup.of_task(self.stream.tasks[self.learned[-1] - 1])
        self._setup = dataclasses.replace(setup, method=newest.method)
        # Two at most, the newest and one to compare: a memory may contain a whole network.
        self._memory = functools.lru_cache(maxsize=2)(self._restore)

    def learn(
        self, data: str, changes: Mapping | None = None, *, distinct: Sequence[str] = ()
    ) -> Results | None:
        """Learns a task that was not planned, or continues it; returns `results`.

        Afterwards this object is the run with the new task. No image of an earlier task is needed:
        a task whose images are not there any more is not tested. Nothing of a generator's old
        classes changes.

        Args:
          data: the source of the new task, in the form of `data.source`. Its classes that the run
            does not know are learned; with `stream.scenario=dil` the source is the next domain.
          changes: keys with other values for this task, such as `{"phase2.steps": 500}`.
          distinct: names of new classes that differ from a known one only in case or Unicode form.

        Raises:
          ValueError: in one line, if there is nothing new, for images of another kind, for a run
            that is joint, unfinished or training right now, and for keys that belong to all tasks.
        """
        self._act("learn", data, changes or {}, distinct=distinct)
        return self.results

    def remove_classes(
        self, classes: Sequence[int | str] | int | str
    ) -> tuple[removed.Removal, ...]:
        """Forgets learned classes exactly: see `flcl.runs.later.removal.remove_classes`."""
        return self._act("remove_classes", classes)

    def _act(self, name: str, *given, **options):
        """Changes the run on disk; afterwards this object is the run as it is then."""
        if self._acts is None:
            raise ValueError(f"{self.workdir}: this run was opened to be read; use flcl.open_run")
        result = getattr(self._acts, name)(self.workdir, *given, **options)
        self.__init__(self.workdir, acts=self._acts)
        return result

    def __repr__(self) -> str:
        ids = self._learned(self.stream.tasks[self.learned[-1] - 1])
        names = ", ".join(self.class_names[class_id] for class_id in ids)
        return (
            f"<{self.kind} {self.settings.method!r} in {str(self.workdir)!r}: "
            f"{len(self.learned)} of {len(self.stream.tasks)} tasks learned, "
            f"{len(ids)} classes: {hints.shortened(names)}>"
        )

    if not typing.TYPE_CHECKING:  # a type checker shall name what is missing

        def __getattr__(self, name: str):
            if name in _OTHERS:
                able = [n for n, each in vars(type(self)).items() if callable(each) and n[0] != "_"]
                hint = f": {_OTHERS[name]}; this one can {', '.join(sorted(able))}"
            else:
                hint = f".{hints.did_you_mean(name, dir(self))}"
            raise AttributeError(f"the run of a {self.kind} has no {name!r}{hint}")

    @property
    def results(self) -> Results | None:
        """What `results.json` of the run holds now; None if there is no such file yet.

        Raises `ValueError` for a damaged file.
        """
        path = self.workdir / result_files.NAME
        values = files.read_json(path)
        return None if values is None else result_files.from_json(values, str(path))

    def classes(self) -> tuple[ClassEntry, ...]:
        """Every class of the run, by class id."""
        sizes = self._setup.method.describe()
        count = sizes["parameters_per_class"] if sizes.get("adapted_convolutions") else None
        listed = []
        for number, name in enumerate(self.class_names):
            task = self.task_of(number)
            size = None if count is None else 4 * count  # bytes of float32
            removal = self.removed.of(number)
            when = removal and removal.when
            listed.append(ClassEntry(number, name, task and task.index, count, size, when))
        return tuple(listed)

    def task_of(self, class_id: int) -> Task | None:
        """The newest learned task that trained a class; None = it is not learned yet."""
        label = self._labels([class_id])[0]
        tasks = [self.stream.tasks[index - 1] for index in reversed(self.learned)]
        return next((task for task in tasks if label in task.labels), None)

    def _learned(self, last: Task) -> list[int]:
        """The ids of all classes that are learned after the task `last`, ascending.

        Those that were removed are left out.
        """
        known = {label for task in self.stream.tasks[: last.index] for label in task.labels}
        return sorted(self.stream.class_order[label] for label in self.stream.left(known))

    def check_not_removed(self, class_id: int) -> None:
        """Raises `ValueError` for a class that was removed."""
        if removal := self.removed.of(class_id):
            raise ValueError(f"class {class_id} ({removal.name}) was removed on {removal.when}")

    def _named(
        self, argument: str, entries, last: Task, default: str = ""
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of the classes that a user lists: see `settings.ids.listed`.

        Raises `ValueError` also for a class that is not learned after the task `last`.
        """
        ids = listed(argument, entries, self.class_names, default=default)
        return ids, self._learned_labels(ids, last)

    def _learned_labels(self, ids: Sequence[int], last: Task) -> list[int]:
        known = {label for task in self.stream.tasks[: last.index] for label in task.labels}
        # A user counts classes as the data set does; inside, a label is the place in the class
        # order.
        labels = self._labels(ids)
        for class_id, label in zip(ids, labels, strict=True):
            self.check_not_removed(class_id)
            if label not in known:
                raise ValueError(
                    f"class {class_id} ({self.class_names[class_id]}) is not learned after task "
                    f"{last.index}"
                )
        return labels

    def _restore(self, last: int) -> Memory:
        # From the first task on, because a task stores only what it has added.
        memory = empty_memory(self._setup)
        for task in self.stream.tasks[:last]:
            memory = restore_task(self._setup, self._checkpoints, memory, task)
        return memory

    def _task(self, task: int | None, name: str = "task") -> Task:
        index = self.learned[-1] if task is None else task
        if index not in self.learned:
            raise ValueError(f"{name}={task}: this run has learned tasks 1-{self.learned[-1]}")
        return self.stream.tasks[index - 1]

    def _evaluate_all(self, run: settings.Run, make: Callable[[Setup], Evaluation]) -> dict:
        """A dictionary like `results.json` for every learned task, with the settings `run`."""
        setup = self.with_images(run)
        with jax.set_mesh(setup.mesh):
            evaluation = make(setup)
            # As in the run itself: one memory that grows task by task, one row after each task.
            record, memory = Record(setup, evaluation), empty_memory(self._setup)
            for index in self.learned:
                task = self.stream.tasks[index - 1]
                memory = restore_task(self._setup, self._checkpoints, memory, task)
                record.add(evaluation.evaluate(memory, task), {})
        return to_json(record.results())

    def with_images(self, run: settings.Run) -> Setup:
        """This run with the settings `run` and its images, checked to be those of the run.

        Raises `ValueError` for other images, and if no group can be tested.
        """
        if isinstance(run, settings.GeneratorRun):
            check_judge(run, self._mesh)
        begun, history = workdirs.begun(self.workdir), workdirs.history(self.workdir, {})
        known = {"begun": begun, "history": history, "removed": self.removed.ids}
        setup, _ = prepare(run, self._mesh, stored=True, **known)
        # Other images would give a matrix that cannot be compared with the stored one.
        workdirs.check_stream(self.workdir, setup.data.to_dict(), self._seals)
        newest = self.stream.tasks[self.learned[-1] - 1]
        groups = self.stream.groups if self.stream.joint else self.stream.groups[: newest.index]
        if not any(map(setup.data.tested, groups)):
            raise ValueError(
                f"workdir {self.workdir}: nothing can be tested: every group of classes or domains "
                "has a class that was removed, or images that are not here"
            )
        return setup

    def _labels(self, ids) -> list[int]:
        return [int(label) for label in self.stream.labels_of(np.asarray(ids))]


def read(workdir: Path, *, removing: bool = False) -> tuple[settings.Run, dict]:
    """Settings and `stream.json` of a run, in the format of this version or an older one.

    Its entry `stream` also has the labels that were removed. removing: as in `Run`.

    Raises `ValueError` for a folder that contains no run, leads elsewhere or has another file in
    the place of one of the two, for a newer format, and for a removal that was stopped.
    """
    foreign.check_folder(workdir)
    run = formats.load(workdir)
    try:
        stream = read_stream(workdir)
    except ValueError as error:
        raise ValueError(f"{error}: {_ADVICE}") from None
    inside = [workdir / name for name in settings.PARTS]
    if run is None and all((each / formats.NAME).exists() for each in inside):
        raise ValueError(
            f"workdir {workdir} holds two runs, of a generator and a classifier: open one of "
            f"{' and '.join(map(str, inside))}"
        )
    if run is None or stream is None:
        raise ValueError(f"workdir {workdir} holds no run: config.json or stream.json is missing")
    seals = Seals(workdir, writes=False)
    for name, value in (
        (formats.NAME, formats.identity(formats.stored_keys(workdir))),
        (STREAM, digest(files.as_json(stream))),
    ):
        if seals.holds(name, value) is False:
            raise ValueError(f"{workdir / name} has changed since the run wrote it: {_ADVICE}")
    layers = getattr(getattr(run, "adapter", None), "layers", "")
    tasks = TaskStream.from_dict(stream["stream"])
    if tasks.fingerprint != stream["fingerprint"]:
        raise ValueError(f"{workdir / STREAM}: stream does not fit its fingerprint: {_ADVICE}")
    if layers.startswith(FOUND_LAYERS):  # a run stores the layers that it took from another folder
        raise ValueError(f"{workdir / formats.NAME}: adapter.layers={layers!r} is another folder")
    gone = tasks.without(removed.read(workdir, seals, removing=removing).ids).removed
    return run, {**stream, "stream": {**stream["stream"], "removed": list(gone)}}


def bytes_of(run: settings.GeneratorRun, stream: TaskStream) -> dict[str, int]:
    """Bytes of the parameters of a generator in float32: once, and for each class."""
    sizes = methods.build(run, stream).describe()
    return {"once": 4 * sizes["trunk_parameters"], "per_class": 4 * sizes["parameters_per_class"]}


def changed(run: settings.Run, **sections: dict) -> settings.Run:
    """The settings with some keys of some sections replaced, and checked; None keeps a key."""
    values = bridge.as_dict(run)
    # None is no value of any key here, so it can mean "as it was".
    for name, changes in sections.items():
        values[name].update({k: v for k, v in changes.items() if v is not None})
    return bridge.from_dict(values)
