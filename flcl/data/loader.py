"""Training batches, by class or shuffled: batch k of task t is a pure function of (seed, t, k)."""

import contextlib
import sys
from collections.abc import Iterator, Mapping

import grain
import numpy as np

from flcl.data.selection import Selection
from flcl.data.shuffle import Shuffled

_LABEL_ORDER, _IMAGE_ORDER, _UNION_ORDER = 0, 1, 2  # names of the random streams
_KEPT_EPOCHS = 4  # shuffled epochs remembered: the current one and those of batches ahead


def class_groups(
    pools: Mapping[int, Selection],
    *,
    groups: int,
    per_group: int,
    seed: int,
    task: int,
    shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
    """Endless dataset of batches with `per_group` images of each of `groups` labels.

    `ds[k]` is {"images": uint8 [per_group / shard_count, G, H, W, C], "labels": int32 [G]}. Group g
    of batch k is position k * G + g of a sequence that goes through all labels, newly shuffled,
    again and again; with fewer labels than groups a label fills several of them. A label's images
    are taken in shuffled epochs, each exactly once per epoch, whatever the batch boundaries.
    shard: (index, count) cuts axis n; only the images of this part are read, and the parts put
    together along n are the whole batch. Raises `ValueError` for an empty pool, images of different
    shapes and a `per_group` that the shards do not divide.
    """
    if groups < 1 or per_group < 1:
        raise ValueError(
            f"training batches: {groups} groups of {per_group} images; both must be at least 1"
        )
    _check_pools(pools)
    for label, pool in pools.items():
        if len(pool) == 0:
            raise ValueError(f"training batches: label {label} has no images; add some")
    _check_draw(seed, shard)
    if per_group % shard[1]:
        raise ValueError(
            f"training batches: {per_group} images per class do not divide over {shard[1]} shards; "
            f"use a batch_size that is a multiple of groups x {shard[1]}"
        )
    part = per_group // shard[1]
    offset = part * shard[0]
    shape = next(iter(pools.values())).images.shape[1:]
    labels = Shuffled(np.array(sorted(pools)), [seed, task, _LABEL_ORDER], _KEPT_EPOCHS)
    rows = {
        label: Shuffled(pool.indices, [seed, task, _IMAGE_ORDER, label], _KEPT_EPOCHS)
        for label, pool in pools.items()
    }

    def batch(k: int) -> dict[str, np.ndarray]:
        chosen = labels.between(k * groups, (k + 1) * groups)
        images = np.empty((part, groups, *shape), np.uint8)
        for group, label in enumerate(chosen.tolist()):
            # The label was served per_group images in every cycle before this one.
            cycle = (k * groups + group) // len(pools)
            start = cycle * per_group + offset
            images[:, group] = pools[label].images[rows[label].between(start, start + part)]
        return {"images": images, "labels": chosen.astype(np.int32)}

    return grain.MapDataset.range(sys.maxsize // groups).map(batch)


def shuffled_batches(
    pools: Mapping[int, Selection],
    *,
    batch_size: int,
    seed: int,
    task: int,
    shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
    """Endless dataset of batches from all pools together, in shuffled epochs.

    `ds[k]` is {"images": uint8 [batch_size / shard_count, H, W, C], "labels": int32 of as many}:
    entries k * batch_size and on of a sequence in which every image of every pool comes once per
    epoch, whatever the batch boundaries; an epoch may begin inside a batch, and several do when
    there are fewer images than `batch_size`. shard: (index, count) cuts the batch axis; only the
    images of this part are read, with one read for each array (or decoder) that they lie in.
    Pools may be empty, but not all of them: a domain may lack a class. Raises `ValueError` when
    they all are, for images of different shapes and for a `batch_size` that the shards do not
    divide.
    """
    if batch_size < 1:
        raise ValueError(f"training batches: batch_size={batch_size}; must be at least 1")
    _check_pools(pools)
    if not any(map(len, pools.values())):
        raise ValueError("training batches: no label has images; a task needs at least one")
    _check_draw(seed, shard)
    if batch_size % shard[1]:
        raise ValueError(
            f"training batches: batch_size={batch_size} does not divide over {shard[1]} shards; "
            f"use a multiple of {shard[1]}"
        )
    part = batch_size // shard[1]
    offset = part * shard[0]
    ordered = [(label, pools[label]) for label in sorted(pools)]
    arrays = list({id(pool.images): pool.images for _, pool in ordered}.values())
    places = {id(images): place for place, images in enumerate(arrays)}
    sizes = [len(pool) for _, pool in ordered]
    rows = np.concatenate([pool.indices for _, pool in ordered])
    labels = np.repeat(np.array([label for label, _ in ordered], np.int32), sizes)
    owners = np.repeat([places[id(pool.images)] for _, pool in ordered], sizes)
    order = Shuffled(np.arange(len(rows)), [seed, task, _UNION_ORDER], _KEPT_EPOCHS)

    def batch(k: int) -> dict[str, np.ndarray]:
        start = k * batch_size + offset
        chosen = order.between(start, start + part)
        images = np.empty((part, *arrays[0].shape[1:]), np.uint8)
        for place in np.unique(owners[chosen]).tolist():
            here = owners[chosen] == place
            images[here] = arrays[place][rows[chosen[here]]]
        return {"images": images, "labels": labels[chosen]}

    return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def in_order(images: Selection, size: int, rows: slice = slice(None)) -> grain.MapDataset:
    """Batches of `size` of a selection from its first image to its last, each once.

    `ds[k]` is {"images": uint8 [n, H, W, C], "labels": int32 [n]}, without labels where the
    selection has none; the last batch is filled up with images that it has already. rows: which
    part of every batch is read.
    """

    def batch(k: int) -> dict[str, np.ndarray]:
        chosen = np.resize(np.arange(len(images))[k * size : (k + 1) * size], size)[rows]
        batch = {"images": images[chosen]}
        return batch if images.labels is None else {**batch, "labels": images.labels[chosen]}

    return grain.MapDataset.range(-(-len(images) // size)).map(batch)


def iterate(
    dataset: grain.MapDataset,
    start: int = 0,
    stop: int | None = None,
    *,
    threads: int = 4,
    prefetch: int = 4,
) -> Iterator[dict[str, np.ndarray]]:
    """`dataset[start]`, `dataset[start + 1]`, ... before `stop` (None: without end).

    Up to `prefetch` batches are prepared ahead by `threads` threads; either may be 0 for none. The
    threads end with the iterator.
    """
    # More threads than batches in flight would idle (and grain warns about them).
    options = grain.ReadOptions(num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch)
    with contextlib.closing(iter(dataset[start:stop].to_iter_dataset(options))) as batches:
        yield from batches


def _check_pools(pools: Mapping[int, Selection]) -> None:
    if not pools:
        raise ValueError("training batches: no labels to train on; a task needs at least one")
    shapes = {label: tuple(pool.images.shape[1:]) for label, pool in pools.items()}
    first = min(shapes)
    for label, shape in shapes.items():
        if shape != shapes[first]:
            raise ValueError(
                f"training batches: images of label {label} are {list(shape)} and those of label "
                f"{first} are {list(shapes[first])}; all must have one shape"
            )


def _check_draw(seed: int, shard: tuple[int, int]) -> None:
    if seed < 0:
        raise ValueError(f"seed={seed}: 0 or more is needed")
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard={shard}: an index from 0 to count - 1 is needed")
