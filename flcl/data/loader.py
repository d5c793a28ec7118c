"""Training batches, by class or shuffled; batch k of task t is a pure function of (seed, t, k)."""

import contextlib
import sys
from collections.abc import Iterator, Mapping

import grain
import numpy as np

from flcl.data.selection import Selection
from flcl.data.shuffle import Shuffled

_LABEL_ORDER, _IMAGE_ORDER, _UNION_ORDER = 0, 1, 2  # names of the random streams
_KEPT_EPOCHS = 4  # shuffled epochs in memory: the current one and those of prefetched batches


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

    `ds[k]` is {"images": uint8 [per_group / shard_count, G, H, W, C], "labels": int32 [G]}; what
    stands in the place of images has its own shape and type. Group g of batch k is entry k * G + g
    of an endless sequence of all labels, in a new order each time; if there are fewer labels than
    groups, a label fills several groups. The images of a label come in shuffled epochs, each image
    exactly once per epoch, independent of the batch boundaries. shard: (index, count) divides the
    first axis; only the images of this shard are read, and the shards together are the whole batch.
    Raises `ValueError` for an empty pool, images of different shapes and a `per_group` that the
    shards do not divide.
    """
    _check_groups(pools, groups, per_group)
    _check_draw(seed, shard)
    if per_group % shard[1]:
        raise ValueError(
            f"training batches: {per_group} images per class do not divide over {shard[1]} shards; "
            f"use a batch_size that is a multiple of groups x {shard[1]}"
        )
    local = per_group // shard[1]
    # Shards are adjacent parts in the order of the processes, as in `hosts.rows`.
    offset = local * shard[0]
    shape = next(iter(pools.values())).images.shape[1:]
    dtype = next(iter(pools.values())).images.dtype
    # Sorted, because the order of a dictionary must not decide what a batch contains.
    labels = Shuffled(np.array(sorted(pools)), [seed, task, _LABEL_ORDER], _KEPT_EPOCHS)
    rows = {
        label: Shuffled(pool.indices, [seed, task, _IMAGE_ORDER, label], _KEPT_EPOCHS)
        for label, pool in pools.items()
    }

    def batch(k: int) -> dict[str, np.ndarray]:
        chosen = labels.between(k * groups, (k + 1) * groups)
        # Filled in place: a list of images and its stack would be in memory at the same time.
        images = np.empty((local, groups, *shape), dtype)
        for group, label in enumerate(chosen.tolist()):
            # Every earlier cycle used per_group images of the label.
            cycle = (k * groups + group) // len(pools)
            start = cycle * per_group + offset
            images[:, group] = pools[label].images[rows[label].between(start, start + local)]
        return {"images": images, "labels": chosen.astype(np.int32)}

    # Endless: the largest number of batches whose entries still have an index of 64 bits.
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

    `ds[k]` is {"images": uint8 [batch_size / shard_count, H, W, C], "labels": int32 [batch_size /
    shard_count]}; what is kept in the place of images has its own shape and type. Batch k starts at
    entry k * batch_size of a sequence in which every image of every pool comes once per epoch. An
    epoch may begin inside a batch; if there are fewer images than `batch_size`, a batch contains
    several epochs. shard: (index, count) divides the batch
    axis; only the images of this shard are read, with one read per array (or decoder). A pool may
    be empty, because a domain may lack a class. Raises `ValueError` if all pools are empty, for
    images of different shapes and for a `batch_size` that the shards do not divide.
    """
    _check_union(pools, batch_size)
    _check_draw(seed, shard)
    if batch_size % shard[1]:
        raise ValueError(
            f"training batches: batch_size={batch_size} does not divide over {shard[1]} shards; "
            f"use a multiple of {shard[1]}"
        )
    local = batch_size // shard[1]
    offset = local * shard[0]
    arrays, owners, rows, labels = _numbered(pools)
    order = Shuffled(np.arange(len(rows)), [seed, task, _UNION_ORDER], _KEPT_EPOCHS)

    def batch(k: int) -> dict[str, np.ndarray]:
        # From the number of the batch alone: a resumed run continues with the same images.
        start = k * batch_size + offset
        chosen = order.between(start, start + local)
        images = np.empty((local, *arrays[0].shape[1:]), arrays[0].dtype)
        # One read per array, because some decoders fetch many images at once.
        for place in np.unique(owners[chosen]).tolist():
            here = owners[chosen] == place
            images[here] = arrays[place][rows[chosen[here]]]
        return {"images": images, "labels": labels[chosen]}

    return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def _check_union(pools: Mapping[int, Selection], batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"training batches: batch_size={batch_size}; must be at least 1")
    _check_pools(pools)
    if not any(map(len, pools.values())):
        raise ValueError("training batches: no label has images; a task needs at least one")


def _numbered(pools: Mapping[int, Selection]) -> tuple[list, np.ndarray, np.ndarray, np.ndarray]:
    """All images of all pools, numbered label after label.

    Returns the arrays (or decoders) of images, and for image i [N]: the place of its array among
    them, its row in that array and its label (int32).
    """
    ordered = [(label, pools[label]) for label in sorted(pools)]
    arrays = list({id(pool.images): pool.images for _, pool in ordered}.values())
    places = {id(images): place for place, images in enumerate(arrays)}
    sizes = [len(pool) for _, pool in ordered]
    owners = np.repeat([places[id(pool.images)] for _, pool in ordered], sizes)
    rows = np.concatenate([pool.indices for _, pool in ordered])
    labels = np.repeat(np.array([label for label, _ in ordered], np.int32), sizes)
    return arrays, owners, rows, labels


def in_order(images: Selection, size: int, rows: slice = slice(None)) -> grain.MapDataset:
    """Batches of `size` images: each image of a selection once, in order.

    `ds[k]` is {"images": uint8 [n, H, W, C], "labels": int32 [n]}, without labels if the selection
    has none. The last batch is filled up by repeating its images. rows: the rows of every batch
    that are read.
    """

    def batch(k: int) -> dict[str, np.ndarray]:
        # `np.resize` repeats its input, so the last batch has the shape of all others.
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
    """`dataset[start]`, `dataset[start + 1]`, ... up to `stop - 1` (None = without end).

    `threads` threads prepare up to `prefetch` batches in advance; each may be 0. The threads end
    with the iterator.
    """
    # More threads than prefetched batches would have no work (and grain warns about them).
    options = grain.ReadOptions(num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch)
    with contextlib.closing(iter(dataset[start:stop].to_iter_dataset(options))) as batches:
        yield from batches


def _check_groups(pools: Mapping[int, Selection], groups: int, per_group: int) -> None:
    if groups < 1 or per_group < 1:
        raise ValueError(
            f"training batches: {groups} groups of {per_group} images; both must be at least 1"
        )
    _check_pools(pools)
    for label, pool in pools.items():
        if len(pool) == 0:
            raise ValueError(f"training batches: label {label} has no images; add some")


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
