"""The classes of a run on disk, and their files: see `flcl.adapters.artifact`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from flcl import files
from flcl.adapters import artifact, functional
from flcl.data.sequence.stream import Task
from flcl.runs.opened.run import Run
from flcl.runs.saved.stored import read_stream
from flcl.settings import bridge
from flcl.storage import paths
from flcl.storage.seals import digest

_SUFFIX = ".safetensors"
_LONGEST = 50  # characters of a class name in the name of its file; one may need four bytes


def export_classes(
    run: Run,
    classes: Sequence[int | str] | int | str | None,
    folder: str | Path,
    *,
    merged: bool = False,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Writes one file for each class; see `GeneratorOnDisk.export_classes`."""
    ids = _ids(run, classes)
    folder = paths.local(folder, "out")
    every = file_names(run.class_names)
    targets = [folder / f"{every[number]}{_SUFFIX}" for number in ids]
    for target in targets:  # all of them before the first is written
        _check_new(target, overwrite)
    memory = run._memory(run.learned[-1])
    trunk_hash = _trunk_hash(run)
    content = _merged if merged else _alone
    for number, target in zip(ids, targets, strict=True):
        files.write(target, content(run, memory, number, run.task_of(number), trunk_hash))
    return tuple(targets)


def export_task(
    run: Run, memory, task: Task, folder: Path, *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Writes the classes of a task that another memory than that of the run has learned."""
    every, trunk_hash, written = file_names(run.class_names), _trunk_hash(run), []
    for label in task.labels:
        number = run.stream.class_order[label]
        target = _check_new(folder / f"{every[number]}{_SUFFIX}", overwrite)
        written.append(files.write(target, _alone(run, memory, number, task, trunk_hash)))
    return tuple(written)


def export_trunk(run: Run, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes the trunk; see `GeneratorOnDisk.export_trunk`."""
    path = _check_new(paths.local(path, "path"), overwrite)
    trunk = _trunk(run)
    about = {**_common(run, run.stream.tasks[0]), "model": _model(run)}
    return files.write(path, artifact.network_bytes(trunk, **about))


def read_class(run: Run, path: str | Path) -> artifact.ClassFile:
    """A class file that fits a run; see `GeneratorOnDisk.read_class`."""
    path = paths.local(path, "path")
    file, adapter, data = artifact.read_class(path), run.settings.adapter, run.settings.data
    _, factors = run._setup.method.trunk_and_factors(run._memory(run.learned[-1]), 0)
    layers = {name: (entry["b"].size, entry["a"].size) for name, entry in factors.items()}
    artifact.check_fit(
        path,
        file.about,
        trunk=_trunk_hash(run),
        family=adapter.family,
        p=adapter.functions,
        layers=layers,
    )
    if file.about.image != (image := (data.image_size, data.channels)):
        raise ValueError(f"{path}: image is {list(file.about.image)}, this run has {list(image)}")
    return file


def file_names(names: Sequence[str]) -> list[str]:
    """A different file name for each class name, without an ending.

    Letters and digits of every script stay; what could lead elsewhere or mean something to a shell
    becomes `_`. Names that would be the same file get `#` and their position.
    """
    plain = []
    for name in names:
        text = "".join(c if c.isalnum() or c in "-_+,()" else "_" for c in name[:_LONGEST])
        plain.append(text or "class")
    # Some file systems do not tell upper from lower case.
    folded = [text.casefold() for text in plain]
    return [
        text if folded.count(text.casefold()) == 1 else f"{text}#{number}"
        for number, text in enumerate(plain)
    ]


def _alone(run: Run, memory, number: int, task: Task, trunk_hash: str) -> bytes:
    """The file of the factors of a class of `task`."""
    about, adapter = _about_class(run, number, task, trunk_hash), run.settings.adapter
    _, factors = run._setup.method.trunk_and_factors(memory, run._labels([number])[0])
    return artifact.class_bytes(jax.tree.map(np.asarray, factors), **about, p=adapter.functions)


def _merged(run: Run, memory, number: int, task: Task, trunk_hash: str) -> bytes:
    """The file of the ordinary U-Net of a class of `task`: W_y = W0 * F_y."""
    about = _about_class(run, number, task, trunk_hash)
    trunk, factors = run._setup.method.trunk_and_factors(memory, run._labels([number])[0])
    network = _merge(trunk, factors, about["family"])
    network = jax.tree.map(np.asarray, network)
    return artifact.network_bytes(network, **about, model=_model(run))


@functools.partial(jax.jit, static_argnames="family")
def _merge(trunk, factors, family: str):
    return functional.merge(trunk, factors, family)


def _trunk(run: Run) -> dict:
    trunk, _ = run._setup.method.trunk_and_factors(run._memory(run.learned[-1]), 0)
    return jax.tree.map(np.asarray, trunk)


def _trunk_hash(run: Run) -> str:
    return artifact.trunk_digest(_trunk(run))


def _about_class(run: Run, number: int, task: Task, trunk_hash: str) -> dict:
    """The entries that the file of a class of `task` has with and without the trunk."""
    return {
        **_common(run, task),
        "name": run.class_names[number],
        "label": run.noise_label(number),
        "family": run.settings.adapter.family,
        "trunk": trunk_hash,
    }


def _common(run: Run, task: Task) -> dict:
    data = run.settings.data
    return {
        "image": (data.image_size, data.channels),
        "seed": run.settings.seed,
        "steps": run._setup.of_task(task).method.steps(task, 0),
        "sources": _fingerprint(run, task),
    }


def _fingerprint(run: Run, task: Task) -> str:
    """SHA-256 of the source of a task, its classes, and their numbers of training images."""
    stored, ids = read_stream(run.workdir), [run.stream.class_order[k] for k in task.labels]
    counts = {run.class_names[i]: stored["train_images"][i] for i in ids}
    later = stored.get("tasks")
    source = later[task.index - 1]["source"] if later else run.settings.data.source
    return digest(files.as_json({"source": source, "train_images": counts}))


def _model(run: Run) -> dict:
    return bridge.as_dict(run.settings)["model"]


def _ids(run: Run, classes: Sequence[int | str] | int | str | None) -> list[int]:
    """The ids of learned classes that a user names; None = all of them."""
    last = run._task(None)
    if classes is None:
        return run._learned(last)
    ids, _ = run._named("classes", classes, last, "all learned classes")
    return list(dict.fromkeys(ids))


def _check_new(path: Path, overwrite: bool) -> Path:
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists already; choose another place, or overwrite it")
    return path
