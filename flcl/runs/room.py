"""Whether a run fits into this machine and ends at all, before memory is asked for.

Each check compares a lower bound with the memory, so a run that works is never refused. Whether a
run that is not refused fits, `flcl precompile` says.
"""

import math
import os
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from flcl import rng, settings
from flcl.data.sequence.tasks import TaskData
from flcl.methods.base import Classifier, Method
from flcl.settings import bridge
from flcl.settings.keys import INT_MOST

GIB = 2**30


def check_images(run: settings.Run, mesh: Mesh) -> None:
    """Raises `ValueError` for a batch whose images alone, in float32, need more memory."""
    data = run.data
    image = 4 * data.image_size**2 * data.channels
    room = _device_memory(mesh) * _memories(mesh)
    for name, count in _image_counts(run):
        if count * image > room:
            raise ValueError(
                f"{name}={count}: with data.image_size={data.image_size} its images need "
                f"{_gib(count * image)}, and the devices have {_gib(room)}; lower one of the two"
            )


def check_model(run: settings.Run, method: Method, mesh: Mesh) -> None:
    """Raises `ValueError` for parameters that need more than the memory of a device."""
    memory = jax.eval_shape(method.init, rng.stream_key(run.seed, "init"))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(memory))
    # At best, the devices of an fsdp group share all of it.
    room = _device_memory(mesh) * min(run.runtime.fsdp, _memories(mesh))
    if size > room:
        keys = [f"stream.capacity={run.stream.capacity}"] if run.stream.capacity else []
        if isinstance(run, settings.GeneratorRun):
            keys += [f"model.width={run.model.width}", f"model.blocks={run.model.blocks}"]
            if isinstance(run, settings.FunLoRARun):
                keys += [f"adapter.functions={run.adapter.functions}"]
        else:
            keys += [f"model.variant={run.model.variant}"]
        raise ValueError(
            f"{', '.join(keys)}: the parameters need {_gib(size)}, and a device has {_gib(room)}; "
            "lower one of these keys"
        )


def check_generated(run: settings.Run, classes: int) -> None:
    """Raises `ValueError` for generated images that need more than the memory of this machine."""
    if not isinstance(run, settings.GeneratorRun):
        return
    image, every = run.data.image_size**2 * run.data.channels, f"the images of {classes} classes"
    judged = run.judge.images_per_class * run.judge.oversample
    needs = [("judge.images_per_class", every, judged * classes * image)]
    if isinstance(run, settings.ReplayRun):
        size = run.replay.images_per_class * classes * image
        needs.append(("replay.images_per_class", every, size))
    if isinstance(run, settings.FunLoRARun) and run.straighten.steps:
        # Noise and images in float32, of at least one class.
        needs.append(("straighten.pairs", "the pairs of a class", run.straighten.pairs * 8 * image))
    for name, what, size in needs:
        if size > _host_memory():
            raise ValueError(
                f"{name}={bridge.value(run, name)}: {what} need {_gib(size)}, and this machine has "
                f"{_gib(_host_memory())}; lower it"
            )


def check_samples(asked: str, images: int, data: settings.Data) -> None:
    """Raises `ValueError` for samples that need more than the memory of this machine.

    asked: what was asked for, as the subject of the error, such as `labels: 9 images`.
    """
    size = images * data.image_size**2 * data.channels
    if size > _host_memory():
        raise ValueError(
            f"{asked} need {_gib(size)}, and this machine has {_gib(_host_memory())}; take them in "
            "several calls"
        )


def check_steps(run: settings.Run, method: Method, data: TaskData) -> None:
    """Raises `ValueError` for more steps than a counter on a device can count."""
    tasks = data.stream.tasks
    images = sum(sum(data.images(task).train) for task in tasks)
    if isinstance(run, settings.GeneratorRun):
        key, steps = "judge.epochs", run.judge.epochs * images / run.judge.batch_size
    else:
        key, steps = "train.epochs", max(method.steps(task, images) for task in tasks)
    if steps > INT_MOST:
        raise ValueError(
            f"{key}={bridge.value(run, key)}: {steps:.3g} steps for {images} images, and at most "
            f"{INT_MOST} can be counted; lower it"
        )


def check_kept(run: settings.Run, method: Method, data: TaskData) -> None:
    """Raises `ValueError` for kept outputs (`model.keep_lower`) above `data.memory_gib`.

    All images of the tasks count, because those of a task stay for the tests after later ones.
    """
    if not isinstance(method, Classifier) or not method.kept_blocks:
        return
    counts = [data.images(task) for task in data.stream.tasks]
    images = sum(sum(count.train) + sum(count.test) for count in counts)
    outputs = method.inputs(images)
    size = math.prod(outputs.shape) * outputs.dtype.itemsize
    if size > run.data.memory_gib * GIB:
        raise ValueError(
            f"model.keep_lower=True: the outputs of block {method.kept_blocks - 1} for {images} "
            f"images need {_gib(size)}, and data.memory_gib={run.data.memory_gib}; raise it, or "
            "set model.keep_lower=False"
        )


def _image_counts(run: settings.Run) -> Iterator[tuple[str, int]]:
    """The key and the number of all images that are on the devices at once."""
    if isinstance(run, settings.GeneratorRun):
        yield "phase1.batch_size", run.phase1.batch_size
        yield "phase2.batch_size", run.phase2.batch_size
        yield "judge.batch_size", run.judge.batch_size
        return
    yield "train.eval_batch_size", run.train.eval_batch_size
    if isinstance(run.train, settings.HeadTrain):
        yield "train.batch_size", run.train.batch_size


def _device_memory(mesh: Mesh) -> int:
    """Bytes of one device; a CPU has all memory of its machine."""
    device = mesh.devices.flat[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    return (stats or {}).get("bytes_limit") or _host_memory()


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memories(mesh: Mesh) -> int:
    """The number of separate memories: the CPU devices of a process share one."""
    devices = mesh.devices.flat
    if devices[0].platform != "cpu":
        return mesh.size
    return len({device.process_index for device in devices})


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"
