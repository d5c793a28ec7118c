"""A run on disk, opened for use: it needs nothing but its workdir (and the data, to evaluate)."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flcl import config, settings
from flcl.config import did_you_mean
from flcl.data.stream import Task, TaskStream
from flcl.methods.base import Memory
from flcl.rng import stream_key
from flcl.train import mesh as meshes
from flcl.train import workdir as workdirs
from flcl.train.checkpoint import Checkpoints
from flcl.train.evaluation import Evaluator
from flcl.train.experiment import initial_memory, restore_task
from flcl.train.generation import ClassSampler
from flcl.train.results import Results
from flcl.train.setup import Build, Setup, prepare, use_compile_cache


class Samples(NamedTuple):
    """Generated images.

    Attributes:
      images: uint8 [K, n, H, W, C].
      classes: class ids of the data set, [K].
      names: of the classes, [K].
      function_evaluations: network calls per image.
    """

    images: np.ndarray
    classes: tuple[int, ...]
    names: tuple[str, ...]
    function_evaluations: int


class Run:
    """A finished or interrupted run.

    Attributes:
      workdir: its folder.
      settings: its settings.
      stream: its classes and tasks.
      class_names: by class id of the data set.
      learned: numbers of the tasks it has learned.
    """

    def __init__(self, workdir: str | Path, build: Build):
        self.workdir = Path(workdir)
        stored = workdirs.read_json(self.workdir / "config.json")
        stream = workdirs.read_json(self.workdir / "stream.json")
        if stored is None or stream is None:
            raise ValueError(
                f"workdir {workdir} holds no run: config.json or stream.json is missing"
            )
        self.settings: settings.Run = config.from_dict(stored)
        use_compile_cache(self.settings.runtime)
        self.class_names = tuple(stream["class_names"])
        self.stream = TaskStream.from_dict(stream["stream"])
        self._build = build
        self._checkpoints = Checkpoints(self.workdir / "checkpoints", read_only=True)
        self.learned = tuple(self._checkpoints.tasks())
        if not self.learned:
            raise ValueError(f"workdir {workdir} has not finished its first task yet")
        # A run may be opened on fewer devices than it was trained on.
        mesh = meshes.make_mesh(math.gcd(self.settings.runtime.fsdp, jax.device_count()))
        method = build(self.settings, self.stream)
        # Sampling needs no data: only evaluation loads the source.
        self._setup = Setup(self.settings, None, self.stream, method, mesh)
        self._memory = functools.cache(self._restore)
        self._sampler = functools.cache(
            lambda sample: ClassSampler(method, self._setup.image_shape, sample, mesh)
        )

    def sample(
        self,
        classes: Sequence[int | str] | None = None,
        per_class: int = 16,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        task: int | None = None,
    ) -> Samples:
        """Images of `classes` in one compiled call.

        An image depends only on (seed, class, index).

        Args:
          classes: class ids of the data set, or class names; None = all that are learned.
          per_class: images of each.
          num_steps: steps of a fixed-step solver; None = as the run was evaluated.
          solver: euler, midpoint, heun or dopri5; None = as the run was evaluated.
          seed: another seed gives other images.
          task: use the model as it was after this task; None = the newest.

        Raises:
          ValueError: for a class or a task that is not learned, or another solver.
        """
        last = self._task(task)
        if classes is None:
            known = [label for task in self.stream.tasks[: last.index] for label in task.labels]
            classes = sorted(self.stream.class_order[label] for label in known)
        ids = [self._class_id(entry) for entry in classes]
        labels = self._labels(ids, last)
        if per_class < 1:
            raise ValueError(f"per_class={per_class}: at least 1 is needed")
        sample = _changed(self.settings, sample={"num_steps": num_steps, "solver": solver}).sample
        with jax.set_mesh(self._setup.mesh):
            key = stream_key(seed, "user samples")
            images, calls = self._sampler(sample)(self._memory(last.index), key, labels, per_class)
        names = tuple(self.class_names[i] for i in ids)
        return Samples(images, tuple(ids), names, calls)

    def evaluate(self, sample: dict | None = None, judge: dict | None = None) -> dict:
        """Judges every learned task anew, with some keys of `sample` and `judge` changed.

        Needs the data of the run. Returns a dictionary like `results.json`; the workdir is not
        touched. Raises `ValueError` for a key or value that these sections do not know.
        """
        changed = _changed(self.settings, sample=sample or {}, judge=judge or {})
        setup = prepare(changed, self._build, mesh=self._setup.mesh)
        workdirs.check_stream(self.workdir, setup.stream_dict())
        with jax.set_mesh(setup.mesh):
            evaluator = Evaluator(setup, lambda *_: lambda *_: None)
            real_judge = evaluator.train_on_real()
            results = Results(setup)
            results.ceiling = evaluator.accuracies(real_judge, list(setup.stream.groups))
            for index in self.learned:
                task = setup.stream.tasks[index - 1]
                row = evaluator.evaluate(self._memory(index), task, real_judge)
                results.add(row, {})
        return results.as_dict(evaluator)

    def _restore(self, last: int) -> Memory:
        memory = initial_memory(self._setup)
        for task in self.stream.tasks[:last]:
            memory = restore_task(self._setup, self._checkpoints, memory, task)
        return memory

    def _task(self, task: int | None) -> Task:
        index = self.learned[-1] if task is None else task
        if index not in self.learned:
            raise ValueError(f"task={task}: this run has learned tasks 1-{self.learned[-1]}")
        return self.stream.tasks[index - 1]

    def _class_id(self, entry: int | str) -> int:
        if entry in self.class_names:
            return self.class_names.index(entry)
        if str(entry).isdigit() and int(entry) < len(self.class_names):
            return int(entry)
        hint = did_you_mean(str(entry), list(self.class_names))
        raise ValueError(
            f"class {entry!r} is none of this run: accepted are 0-{len(self.class_names) - 1} or a "
            f"name.{hint}"
        )

    def _labels(self, ids: Sequence[int], last: Task) -> list[int]:
        known = {label for task in self.stream.tasks[: last.index] for label in task.labels}
        labels = [int(label) for label in self.stream.labels_of(np.asarray(ids))]
        for class_id, label in zip(ids, labels, strict=True):
            if label not in known:
                raise ValueError(
                    f"class {class_id} ({self.class_names[class_id]}) is not learned after task "
                    f"{last.index}"
                )
        return labels


def _changed(run: settings.Run, **sections: dict) -> settings.Run:
    """Settings with the keys that are not None replaced in some sections, checked anew."""
    values = config.as_dict(run)
    for name, changes in sections.items():
        values[name].update({k: v for k, v in changes.items() if v is not None})
    return config.from_dict(values)
