"""Batches: what is in them, and that nothing but (seed, task, position) decides it."""

import collections
import multiprocessing
import threading
import time

import grain
import numpy as np
import pytest

from flcl.data import images, loader
from flcl.data.selection import Selection


def pools(sizes: dict[int, int], start: int = 5) -> dict[int, Selection]:
    """Pixel [0, 0] tells the label, pixel [0, 1] the place of the image in its pool."""
    found = {}
    for label, size in sizes.items():
        pixels = np.zeros((start + size, 2, 3, 1), np.uint8)
        pixels[start:, 0, 0, 0] = label
        pixels[start:, 0, 1, 0] = np.arange(size)
        found[label] = Selection(pixels, np.arange(start, start + size))
    return found


def make(sizes: dict[int, int], *, seed=0, task=1, **values) -> grain.MapDataset:
    values = {"groups": 2, "per_group": 4, **values}
    return loader.class_groups(pools(sizes), seed=seed, task=task, **values)


def places(batch: dict) -> list[tuple[int, list[int]]]:
    """(label, places of its images in the pool) of each group."""
    found = []
    for group, label in enumerate(batch["labels"].tolist()):
        pixels = batch["images"][:, group]
        assert (pixels[:, 0, 0, 0] == label).all(), "an image of another label"
        found.append((label, pixels[:, 0, 1, 0].tolist()))
    return found


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() == {"images", "labels"}
    np.testing.assert_array_equal(one["images"], other["images"])
    np.testing.assert_array_equal(one["labels"], other["labels"])


def test_shapes():
    batch = make({0: 9, 1: 9, 2: 9}, groups=3, per_group=5)[0]
    assert batch["images"].shape == (5, 3, 2, 3, 1) and batch["images"].dtype == np.uint8
    assert batch["labels"].shape == (3,) and batch["labels"].dtype == np.int32


@pytest.mark.parametrize(
    ("groups", "per_group", "sizes"),
    [
        (2, 4, {3: 8, 4: 8}),
        (2, 3, {0: 7, 1: 5, 2: 11}),  # neither labels nor images divide
        (3, 4, {7: 5, 2: 9}),  # fewer labels than groups
        (4, 2, {1: 3}),  # a single label
        (1, 7, {0: 4, 5: 3, 9: 2, 1: 1}),  # more images per group than there are
    ],
)
def test_labels_come_once_per_cycle_and_images_once_per_epoch(groups, per_group, sizes):
    dataset = make(sizes, groups=groups, per_group=per_group)
    served = [entry for k in range(60) for entry in places(dataset[k])]
    labels = [label for label, _ in served]
    cycles = [labels[n : n + len(sizes)] for n in range(0, len(labels), len(sizes))]
    for cycle in cycles[: len(labels) // len(sizes)]:
        assert sorted(cycle) == sorted(sizes)
    streams = collections.defaultdict(list)
    for label, images_served in served:
        streams[label] += images_served
    for label, stream in streams.items():
        size = sizes[label]
        epochs = [stream[n : n + size] for n in range(0, len(stream), size)]
        assert len(epochs) >= 2
        for epoch in epochs[:-1]:
            assert sorted(epoch) == list(range(size))
        assert len(set(epochs[-1])) == len(epochs[-1])


def test_several_groups_of_one_label_hold_different_images():
    batch = make({4: 12}, groups=3, per_group=4)[0]
    assert batch["labels"].tolist() == [4, 4, 4]
    assert sorted(batch["images"][:, :, 0, 1, 0].ravel()) == list(range(12))


def test_orders_are_shuffled_and_change():
    dataset = make({label: 40 for label in range(6)}, groups=6, per_group=40)
    first, second = places(dataset[0]), places(dataset[1])
    assert len({tuple(places) for _, places in first}) == 6, "labels share an order"
    assert [label for label, _ in first] != [label for label, _ in second]
    before, after = dict(first), dict(second)
    for label in range(6):
        assert before[label] != list(range(40))
        assert before[label] != after[label]


def test_shuffling_is_uniform():
    """Over many seeds every image is first equally often (chi-squared, 9 degrees of freedom)."""
    first = [make({0: 10}, groups=1, per_group=1, seed=n)[0]["images"][0, 0, 0, 1, 0]
             for n in range(1000)]  # fmt: skip
    counts = np.bincount(first, minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < 33.7  # p = 1e-4


def test_batches_are_a_pure_function_of_seed_task_and_position():
    sizes = {0: 9, 1: 7, 2: 8}
    expected = [make(sizes)[k] for k in range(25)]  # a fresh dataset for each
    dataset = make(dict(reversed(sizes.items())))  # the order of the mapping does not matter
    for k in np.random.RandomState(0).permutation(25).tolist():
        assert_equal(dataset[k], expected[k])
    far = 10**9
    assert_equal(make(sizes)[far], make(sizes)[far])


def test_seeds_and_tasks_differ():
    sizes = {0: 50, 1: 50}
    variants = [make(sizes, seed=s, task=t, per_group=50)[0] for s in (0, 1) for t in (1, 2)]
    for n, one in enumerate(variants):
        for other in variants[:n]:
            assert (one["images"] != other["images"]).any()
    # Neighbouring seeds must not be each other's neighbouring epochs.
    after = make(sizes, seed=0, task=1, per_group=50)[1]
    assert all(
        a != b for a, b in zip(dict(places(after)).values(), dict(places(variants[2])).values(),
                               strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shards_are_slices_of_the_whole_batch(count):
    sizes = {0: 9, 1: 7, 2: 20}
    whole = make(sizes, per_group=6)
    shards = [make(sizes, per_group=6, shard=(index, count)) for index in range(count)]
    for k in (0, 1, 5, 17):
        parts = [shard[k] for shard in shards]
        assert all(len(part["images"]) == 6 // count for part in parts)
        joined = np.concatenate([part["images"] for part in parts])
        np.testing.assert_array_equal(joined, whole[k]["images"])
        for part in parts:
            np.testing.assert_array_equal(part["labels"], whole[k]["labels"])


def test_a_shard_reads_only_its_own_images(data):
    read = []

    def recorded(positions):
        read.extend(positions)
        return (np.full((8, 8, 3), position, np.uint8) for position in positions)

    lazy = images.LazyImages(30, recorded, data())
    lazies = {0: Selection(lazy, np.arange(10)), 1: Selection(lazy, np.arange(10, 30))}
    dataset = loader.class_groups(lazies, groups=2, per_group=8, seed=0, task=1, shard=(1, 4))
    batch = dataset[3]
    assert sorted(read) == sorted(batch["images"][:, :, 0, 0, 0].ravel().tolist())
    assert len(read) == 4


def test_decoders_and_arrays_give_the_same(data):
    array = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    lazy = images.LazyImages(20, lambda positions: (array[p] for p in positions), data())
    made = [
        loader.class_groups(
            {n: Selection(kind, np.arange(n * 10, n * 10 + 10)) for n in range(2)},
            groups=2, per_group=4, seed=0, task=1,
        )
        for kind in (array, lazy)
    ]  # fmt: skip
    for k in range(5):
        assert_equal(made[0][k], made[1][k])


def test_pools_may_lie_in_different_arrays():
    mixed = {**pools({0: 6}), **pools({1: 9}, start=40)}
    dataset = loader.class_groups(mixed, groups=2, per_group=3, seed=0, task=2)
    assert sorted(label for label, _ in places(dataset[0])) == [0, 1]


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (1, 3), (4, 2), (3, 8)])
def test_iterate_gives_the_batches_of_the_dataset(threads, prefetch):
    dataset = make({0: 9, 1: 7, 2: 8})
    options = {"threads": threads, "prefetch": prefetch}
    found = list(loader.iterate(dataset, 7, 19, **options))
    assert len(found) == 12
    for k, batch in enumerate(found, start=7):
        assert_equal(batch, dataset[k])
    assert list(loader.iterate(dataset, 4, 4, **options)) == []


def test_iterate_without_end_stops_with_its_threads():
    dataset = make({0: 9, 1: 7})
    running = set(threading.enumerate())
    batches = loader.iterate(dataset, 3, threads=2, prefetch=4)
    for k in range(3, 20):
        assert_equal(next(batches), dataset[k])
    assert set(threading.enumerate()) - running
    assert multiprocessing.active_children() == []
    batches.close()
    for _ in range(200):
        if not set(threading.enumerate()) - running:
            break
        time.sleep(0.05)
    assert not set(threading.enumerate()) - running


@pytest.mark.parametrize("threads", [0, 2])
def test_iterate_passes_errors_on(data, threads):
    def broken(positions):
        raise ValueError("cat/3.png: no readable image")

    lazy = images.LazyImages(4, broken, data())
    dataset = loader.class_groups(
        {0: Selection(lazy, np.arange(4))}, groups=1, per_group=2, seed=0, task=1
    )
    with pytest.raises(ValueError, match="cat/3.png: no readable image"):
        next(loader.iterate(dataset, threads=threads, prefetch=threads))


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ({}, {}, "no labels to train on"),
        ({0: 4, 7: 0}, {}, "label 7 has no images"),
        ({0: 4}, {"groups": 0}, "0 groups of 4 images; both must be at least 1"),
        ({0: 4}, {"per_group": 0}, "2 groups of 0 images"),
        ({0: 4}, {"seed": -1}, "seed=-1: 0 or more is needed"),
        ({0: 4}, {"shard": (0, 3)}, "4 images per class do not divide over 3 shards.*groups x 3"),
        ({0: 4}, {"shard": (2, 2)}, r"shard=\(2, 2\): an index from 0 to count - 1"),
        ({0: 4}, {"shard": (0, 0)}, r"shard=\(0, 0\)"),
    ],
)
def test_errors(sizes, values, message):
    with pytest.raises(ValueError, match=message):
        make(sizes, **values)


def test_images_of_different_shapes_are_refused():
    mixed = {**pools({0: 6}), 3: Selection(np.zeros((4, 2, 2, 1), np.uint8), np.arange(4))}
    with pytest.raises(ValueError, match=r"label 3 are \[2, 2, 1\] and those of label 0 are"):
        loader.class_groups(mixed, groups=2, per_group=2, seed=0, task=1)
