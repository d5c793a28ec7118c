"""Everything a run needs before its first step, checked before anything is written."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.data.loader import Pool
from flcl.data.sources import Source, load_source
from flcl.data.stream import Task, TaskStream, make_stream
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.methods.base import Method

# (description, total) -> what is told the number of finished items.
Progress = Callable[[str, int], Callable[..., None]]
Build = Callable[[settings.Run, TaskStream], Method]


@dataclasses.dataclass(frozen=True)
class Setup:
    """A checked run: settings, data, task stream, method and mesh."""

    run: settings.Run
    source: Source
    stream: TaskStream
    method: Method
    mesh: Mesh

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        data = self.run.data
        return (data.image_size, data.image_size, data.channels)

    def pools(self, task: Task) -> dict[int, Pool]:
        """The real training images of a task's classes."""
        split = self.source.train
        indices = self.stream.indices(split, task.labels, task.domains)
        return {label: Pool(split.images, chosen) for label, chosen in indices.items()}

    def steps(self, task: Task) -> int:
        """Optimiser steps of a task."""
        images = sum(len(pool.indices) for pool in self.pools(task).values())
        return self.method.steps(task, images)

    def test_counts(self) -> list[int]:
        """Test images of each group."""
        test = self.source.test
        found = [self.stream.indices(test, g.labels, g.domains) for g in self.stream.groups]
        return [sum(map(len, by_label.values())) for by_label in found]

    def stream_dict(self) -> dict:
        """Classes, tasks and image counts, as stored beside the config."""
        return {
            "stream": self.stream.to_dict(),
            "fingerprint": self.stream.fingerprint,
            "class_names": list(self.source.class_names),
            "domain_names": list(self.source.domain_names),
            "train_images": np.bincount(self.source.train.labels).tolist(),
            "test_images": np.bincount(self.source.test.labels).tolist(),
        }

    def class_names(self) -> list[str]:
        """Names by label, i.e. in class order."""
        return [self.source.class_names[i] for i in self.stream.class_order]

    def task_names(self) -> list[str]:
        """Names of the groups: their classes, or their domain."""
        source = self.source
        return list(self.stream.names(source.class_names, source.domain_names))


def prepare(run: settings.Run, build: Build, mesh: Mesh | None = None) -> Setup:
    """Loads the data and builds the method; without a `mesh`, also the one to train on.

    Raises `ValueError` in one line for everything that would fail later: unreadable data, a class
    order that is none, a batch that does not split, layers or classes that do not exist.
    """
    if mesh is None:
        mesh = meshes.make_mesh(run.runtime.fsdp)
        check_batches(run, mesh)
    with hosts.main_first("data"):  # official archives are prepared once
        source = load_source(run.data, threads=run.runtime.threads)
    stream = make_stream(run.stream, source)
    return Setup(run, source, stream, build(run, stream), mesh)


def check_batches(run: settings.Run, mesh: Mesh) -> None:
    """Raises `ValueError` for a global batch that does not split over the devices."""
    if isinstance(run, settings.ClassifierRun):
        meshes.check_divides("train.batch_size", run.train.batch_size, mesh)
        return
    for name, phase in (("phase1", run.phase1), ("phase2", run.phase2)):
        meshes.check_batch(name, phase.batch_size, phase.groups, mesh)
    check_judge(run, mesh)


def check_judge(run: settings.GeneratorRun, mesh: Mesh) -> None:
    """Raises `ValueError` for a batch of the judge that does not split over the devices."""
    meshes.check_divides("judge.batch_size", run.judge.batch_size, mesh)


def use_compile_cache(runtime: settings.Runtime) -> None:
    """Keeps compiled programs on disk, so that a second run starts at once."""
    if runtime.compile_cache == "off" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = Path(runtime.compile_cache or Path.home() / ".cache" / "flcl").expanduser()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # A run starts dozens of small programs: together they take as long as a large one.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
