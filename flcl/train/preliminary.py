"""The short run before a task that measures its complexity (DRS, M4)."""

import numpy as np

from flcl.data import loader
from flcl.data.loader import Pool
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier, Preliminary
from flcl.rng import stream_key
from flcl.train.features import labelled, read_ahead


def split(pools: dict[int, Pool], holdout: float, seed: int, task: int):
    """`(train, held)`: of each label the share `holdout` is kept apart, at least one image.

    A label with a single image trains and is held. Decided by (seed, task, label) alone.
    """
    train, held = {}, {}
    for label, pool in pools.items():
        if not len(pool.indices):  # a domain may lack a class
            continue
        order = np.random.default_rng([seed, task, label]).permutation(len(pool.indices))
        count = max(1, round(holdout * len(order)))
        rows = np.asarray(pool.indices)
        held[label] = Pool(pool.images, rows[order[:count]])
        train[label] = Pool(pool.images, rows[order[count:] if len(order) > count else order])
    return train, held


def steps(preliminary: Preliminary, images: int, batch_size: int) -> int:
    """Optimiser steps of the short run over `images` images."""
    return max(1, round(preliminary.epochs * images / batch_size))


def complexity(
    method: Classifier,
    phase: int,
    task,
    trainable,
    frozen,
    pools: dict[int, Pool],
    *,
    run_steps,
    create,
    preliminary: Preliminary,
    mesh,
    losses,
    progress,
) -> float:
    """H_t: mean held-out cross-entropy after the short run, divided by ln of the class count.

    The model is trained with the step of the phase on the rest of the task's images, measured, and
    thrown away.
    """
    run = method.run
    train, held = split(pools, preliminary.holdout, run.seed, task.index)
    count = sum(len(pool.indices) for pool in train.values())
    total = steps(preliminary, count, run.train.batch_size)
    state = create(trainable, total)
    frozen = method.probing(frozen)
    dataset = method.batches(task, train, hosts.shard())
    batches = loader.iterate(
        dataset, 0, total, threads=run.runtime.threads, prefetch=run.runtime.prefetch
    )
    key = stream_key(run.seed, "preliminary", task.index)
    advance = progress(f"complexity of task {task.index}", total)
    for done, batch in enumerate(batches, start=1):
        state, _ = run_steps(state, frozen, [batch], key)
        advance(done)
    value = _held_out(losses, state.trainable, frozen, held, run, mesh)
    if not np.isfinite(value):
        raise FloatingPointError(
            f"the short run before task {task.index} ends with a loss that is not finite: "
            f"{method.remedy(phase)}, in a new workdir"
        )
    return value / float(np.log(max(2, len(task.labels))))


def _held_out(losses, trainable, frozen, held: dict[int, Pool], run, mesh) -> float:
    """Mean loss over all held-out images; batches are filled up and the filling not counted."""
    size = -(-run.train.eval_batch_size // mesh.size) * mesh.size
    images = next(iter(held.values())).images
    part = labelled(images, {label: np.asarray(pool.indices) for label, pool in held.items()})
    total = 0.0
    for number, batch in enumerate(read_ahead(part, size, run.runtime)):
        placed = meshes.place_batch(batch, mesh, frozenset(batch))
        found = losses(trainable, frozen, placed["images"], placed["labels"])
        total += float(np.asarray(found)[: len(part.indices) - number * size].sum())
    return total / len(part.indices)
