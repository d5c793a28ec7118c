"""The short run before a task that measures held-out losses, such as its complexity (DRS, M4)."""

from collections.abc import Callable

import numpy as np

from flcl import waiting
from flcl.data import loader
from flcl.data.selection import Selection, joined
from flcl.data.sequence.stream import Task
from flcl.devices import hosts, sharding
from flcl.devices import mesh as meshes
from flcl.methods.base import Preliminary
from flcl.rng import host_generator, stream_key
from flcl.training.loop import advance
from flcl.training.step import Phase


def split(images: dict[int, Selection], holdout: float, seed: int, task: int):
    """`(train, held)`: the share `holdout` of each label is held out, at least one image.

    The only image of a label is in both. The split depends on (seed, task, label) only.
    """
    train, held = {}, {}
    for label, selection in images.items():
        if not len(selection):  # a domain may lack a class
            continue
        # A generator per label: another label in the task must not change which images are held
        # out.
        order = host_generator(seed, "holdout", task, label).permutation(len(selection))
        count = max(1, round(holdout * len(order)))
        rows = np.asarray(selection.indices)
        held[label] = Selection(selection.images, rows[order[:count]])
        # Without any image to train on, the head would never see the label, and H would measure
        # only the head's start.
        trained = order[count:] if len(order) > count else order
        train[label] = Selection(selection.images, rows[trained])
    return train, held


def steps(short: Preliminary, images: int, batch_size: int) -> int:
    """Optimiser steps of the short run over `images` images."""
    return max(1, round(short.epochs * images / batch_size))


def held_out_losses(
    phase: Phase,
    task: Task,
    trainable,
    frozen,
    images: dict[int, Selection],
    short: Preliminary,
    progress: Callable[[str, int], Callable[..., None]],
) -> list[float]:
    """Mean held-out cross-entropies after the short run, divided by ln of the class count.

    The step of the phase trains the model on the other images of the task. `Method.probing` says
    with which models the loss is measured; the first one is H_t, if there is one only. After the
    measurement the model is discarded.
    """
    method, run = phase.method, phase.method.run
    # A loss on the training images would only show how fast the model learns them by heart.
    train, held = split(images, short.holdout, run.seed, task.index)
    total = steps(short, sum(map(len, train.values())), run.train.batch_size)
    # The programs of the phase are used, so the short run compiles no other step. `create` copies
    # `trainable`: the task itself still starts from the old values.
    state = phase.create(trainable, total)
    frozen, measured = method.probing(frozen)
    dataset, runtime = method.batches(task, train, hosts.shard()), run.runtime
    batches = loader.iterate(dataset, 0, total, threads=runtime.threads, prefetch=runtime.prefetch)
    key = stream_key(run.seed, "preliminary", task.index)
    show = progress(f"complexity of task {task.index}", total)
    for done, batch in enumerate(batches, start=1):
        state, _ = advance(phase, state, frozen, [batch], key)
        show(done)
    values = [_held_out(phase, state.trainable, each, joined(held)) for each in measured]
    # Otherwise all logits of the selector would be NaN, and argmax would silently choose the
    # first candidate.
    if not np.isfinite(values).all():
        raise FloatingPointError(
            f"the short run before task {task.index} ends with a loss that is not finite: "
            f"{method.remedy(phase.index)}, in a new workdir"
        )
    # ln C is the loss of a uniform guess over C classes. Without it, a task with more classes
    # would look harder (M4).
    return [value / float(np.log(max(2, len(method.compared(task))))) for value in values]


def _held_out(phase: Phase, trainable, frozen, held: Selection) -> float:
    """Mean loss over all held-out images; the padding of the last batch is not counted."""
    run, mesh = phase.method.run, phase.mesh
    size = meshes.rounded_up(run.train.eval_batch_size, mesh)
    dataset, runtime = loader.in_order(held, size, hosts.rows(size)), run.runtime
    batches = loader.iterate(dataset, threads=runtime.threads, prefetch=runtime.prefetch)
    total = 0.0
    for number, batch in enumerate(batches):
        placed = sharding.place_batch(batch, mesh, frozenset(batch))
        with waiting.first_call(phase.losses, "the held-out losses", (run.method, run.model)):
            losses = phase.losses(trainable, frozen, placed["images"], placed["labels"])
        total += float(np.asarray(losses)[: len(held) - number * size].sum())
    return total / len(held)
