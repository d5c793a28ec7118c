"""What a classifier sees in the place of old images: samples of a generator, and other images.

A generator is another run. It counts by the names of its classes: its class ids and the order of
its tasks may differ from those of the classifier.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import jax
import numpy as np

from flcl import hints, settings
from flcl.data import images
from flcl.data.encoded.check import Progress
from flcl.data.selection import Selection, everything
from flcl.data.sequence.stream import Task, TaskStream
from flcl.data.sources import load_unlabelled
from flcl.devices import hosts
from flcl.rng import stream_key
from flcl.runs.opened import run as opened
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import Setup
from flcl.storage import paths
from flcl.storage.seals import Seals

_KEY = "memory.generator"
_DECIDE = ("solver", "num_steps", "rtol", "atol")  # of the keys `sample`, all that changes an image


class Substitutes:
    """The images that stand for old ones in one run of a classifier.

    Attributes:
      unlabelled: images without labels for the map of the drift; None = there are none.
    """

    def __init__(self, setup: Setup, unlabelled: Selection | None):
        self._setup, self.unlabelled = setup, unlabelled

    def samples(self, task: Task) -> Selection | None:
        """Samples of all classes that were learned before `task`; None without a generator.

        `memory.per_class` of each class, with the labels of the classifier, in the shape of its
        training images. The generator is used as it was when it had learned these classes and no
        others after them. An image depends only on (seed, task, class, index).
        """
        run, data = self._setup.run, self._setup.data
        earlier = data.stream.tasks[: task.index - 1]
        old = [label for each in earlier for label in data.stream.left(each.labels)]
        if not isinstance(run, settings.MovingRun) or not run.memory.generator or not old:
            return None
        names = data.class_names()
        drawn = self._generator.draw(
            [names[label] for label in old],
            run.memory.per_class,
            stream_key(run.seed, "samples of old classes", task.index),
        )
        small = np.concatenate(list(drawn))
        labels = np.repeat(old, run.memory.per_class)

        def read(positions: Sequence[int]):
            return (images.convert(small[k], f"sample {k}", run.data) for k in positions)

        # Resized when they are read: at the size of the classifier they may need much memory.
        return everything(images.LazyImages(len(small), read, run.data), labels)

    @functools.cached_property
    def _generator(self) -> GeneratorOnDisk:
        # Late, because its processes connect: by then each has found that the run can begin.
        place = paths.local(self._setup.run.memory.generator, _KEY)
        return GeneratorOnDisk(place, compile_cache=False)


def prepare(setup: Setup, progress: Progress) -> tuple[Setup, Substitutes]:
    """Checks and opens what stands for old images; the setup has what `results.json` says of it.

    Raises `ValueError` in one line if `drift.images` cannot be read or are others than
    `drift.sha256` says, and if `memory.generator` does not know all classes that will be old, is
    another one than `memory.sha256` says, or has samples of a size that `data.resize=False`
    refuses.
    """
    run = setup.run
    if not isinstance(run, settings.MovingRun):
        return setup, Substitutes(setup, None)
    facts, unlabelled = {}, None
    # What fails in one process alone ends before the exchange that follows.
    with hosts.together():
        if run.drift.images:
            unlabelled, sha256 = _unlabelled(run, progress)
            facts["unlabelled_images"] = len(unlabelled)
            run = dataclasses.replace(run, drift=dataclasses.replace(run.drift, sha256=sha256))
        if run.memory.generator:
            generator, sha256 = _checked(setup)
            facts["generator"] = generator
            facts["samples_per_class"] = run.memory.per_class
            run = dataclasses.replace(run, memory=dataclasses.replace(run.memory, sha256=sha256))
    _check_same(run)
    setup = dataclasses.replace(setup, run=run, substitutes=facts)
    return setup, Substitutes(setup, unlabelled)


def _unlabelled(run: settings.MovingRun, progress: Progress) -> tuple[Selection, str]:
    """The images `drift.images`, and their SHA-256."""
    spec, wanted = run.drift.images, run.drift.sha256
    split, sha256 = load_unlabelled(spec, run.data, threads=run.runtime.threads, progress=progress)
    if wanted not in ("", sha256):
        raise ValueError(
            f"drift.sha256={wanted!r}: drift.images={spec!r} has the SHA-256 {sha256}; bring the "
            "other images back, or begin again in another workdir"
        )
    return everything(split.images), sha256


def _check_same(run: settings.MovingRun) -> None:
    """Raises `ValueError` in all processes if one has others than the first one."""
    places = {"drift.images": run.drift, _KEY: run.memory}
    digests = {key: section.sha256 for key, section in places.items()}
    first = hosts.from_main(digests)
    with hosts.together():
        for key in digests:
            if digests[key] != first[key]:
                raise ValueError(
                    f"{key}: process {jax.process_index()} has another content than the first "
                    "process; give all processes the same"
                )


def _checked(setup: Setup) -> tuple[dict, str]:
    """Bytes of the generator, once and per class, and its SHA-256."""
    run, stream, names = setup.run, setup.data.stream, setup.data.class_names()
    place = run.memory.generator
    workdir = paths.local(place, _KEY)
    try:
        generator, stored = opened.read(workdir)
    except ValueError as error:
        raise ValueError(f"{_KEY}: {error}") from None
    if not isinstance(generator, settings.FunLoRARun):
        raise ValueError(
            f"{_KEY}={place!r}: a run of {generator.method}; a run of funlora is needed, whose "
            "learned classes never change"
        )
    _check_images(run, generator)
    tasks = TaskStream.from_dict(stored["stream"])
    with Checkpoints(workdir / "checkpoints", True, Seals(workdir, writes=False)) as checkpoints:
        learned = checkpoints.tasks()
        old = [names[label] for task in stream.tasks[:-1] for label in stream.left(task.labels)]
        last = _last_task(place, tasks, stored["class_names"], old, len(learned))
        digests = [checkpoints.digest_of(task) for task in learned[:last]]
    sample = [getattr(generator.sample, name) for name in _DECIDE]
    if generator.sample.guidance != 1.0:  # otherwise the digest is that of earlier versions
        sample.append(generator.sample.guidance)
    if generator.sample.grid != "uniform":
        sample.append(generator.sample.grid)
    told = json.dumps([digests, stored["class_names"], tasks.fingerprint, sample])
    sha256 = hashlib.sha256(told.encode()).hexdigest()
    if run.memory.sha256 not in ("", sha256):
        raise ValueError(
            f"memory.sha256={run.memory.sha256!r}: {_KEY}={place!r} has the SHA-256 {sha256}; "
            "bring the other generator back, or begin again in another workdir"
        )
    return opened.bytes_of(generator, tasks), sha256


def _check_images(run: settings.MovingRun, generator: settings.FunLoRARun) -> None:
    size = generator.data.image_size
    if not run.data.resize and size != run.data.image_size:
        raise ValueError(
            f"{_KEY}={run.memory.generator!r}: its samples have {size} pixels, "
            f"data.image_size={run.data.image_size} and data.resize=False; set data.resize=True"
        )


def _last_task(place: str, tasks: TaskStream, known, needed: Sequence[str], learned: int) -> int:
    """The number of the task of a generator after which it knows all `needed` names.

    known: its class names by class id. learned: the number of tasks that it has finished.
    """
    place_of = {
        known[tasks.class_order[label]]: task.index
        for task in tasks.tasks
        for label in tasks.left(task.labels)
    }
    missing = [name for name in needed if place_of.get(name, learned + 1) > learned]
    if missing:
        some = ", ".join(map(hints.quoted, missing[:5])) + (" and more" if missing[5:] else "")
        raise ValueError(
            f"{_KEY}={place!r}: knows no {some} after its {learned} finished tasks; it needs all "
            "classes that will be old, by name: train it further, or use another generator"
        )
    return max((place_of[name] for name in needed), default=0)
