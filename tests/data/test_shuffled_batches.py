"""Shuffled batches of a classifier: each image once per epoch, and nothing but (seed, task, k)."""

import numpy as np
import pytest

from flcl.data import images, loader
from flcl.data.selection import Selection


def pools(sizes: dict[int, int], start: int = 5, shared: bool = False) -> dict[int, Selection]:
    """Pixel [0, 0] tells the label, pixel [0, 1] the place of the image in its pool."""
    found, everything = {}, []
    for label, size in sizes.items():
        pixels = np.zeros((start + size, 2, 3, 1), np.uint8)
        pixels[start:, 0, 0, 0] = label
        pixels[start:, 0, 1, 0] = np.arange(size)
        rows = np.arange(start, start + size)
        found[label] = Selection(pixels, rows + sum(map(len, everything)) * shared)
        everything.append(pixels)
    if shared:
        whole = np.concatenate(everything)
        found = {label: Selection(whole, pool.indices) for label, pool in found.items()}
    return found


def make(sizes, *, batch_size=4, seed=0, task=1, shared=False, **values):
    return loader.shuffled_batches(
        pools(sizes, shared=shared), batch_size=batch_size, seed=seed, task=task, **values
    )


def served(batch: dict) -> list[tuple[int, int]]:
    """(label, place in its pool) of each image."""
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], batch["labels"])
    return list(zip(batch["labels"].tolist(), batch["images"][:, 0, 1, 0].tolist(), strict=True))


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() == {"images", "labels"}
    np.testing.assert_array_equal(one["images"], other["images"])
    np.testing.assert_array_equal(one["labels"], other["labels"])


def test_shapes():
    batch = make({0: 9, 1: 9}, batch_size=6)[0]
    assert batch["images"].shape == (6, 2, 3, 1) and batch["images"].dtype == np.uint8
    assert batch["labels"].shape == (6,) and batch["labels"].dtype == np.int32


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, {3: 8, 4: 8}), (5, {0: 7, 9: 1, 2: 11}), (7, {6: 3}), (64, {1: 5, 0: 6}), (1, {0: 2})],
)
def test_every_image_comes_once_per_epoch(batch_size, sizes, shared):
    dataset = make(sizes, batch_size=batch_size, shared=shared)
    total = sum(sizes.values())
    stream = [entry for k in range(3 * total // batch_size + 3) for entry in served(dataset[k])]
    everything = sorted((label, n) for label, size in sizes.items() for n in range(size))
    epochs = [stream[n : n + total] for n in range(0, len(stream) - total + 1, total)]
    assert len(epochs) >= 3
    for epoch in epochs:
        assert sorted(epoch) == everything


def test_orders_mix_labels_and_change():
    dataset = make({0: 50, 1: 50}, batch_size=100)
    first, second = served(dataset[0]), served(dataset[1])
    assert first != second and sorted(first) == sorted(second)
    assert 10 < sum(label for label, _ in first[:50]) < 40
    others = [served(make({0: 50, 1: 50}, batch_size=100, seed=s, task=t)[0])
              for s, t in ((1, 1), (0, 2))]  # fmt: skip
    assert first not in others and second not in others and others[0] != others[1]


def test_shuffling_is_uniform():
    """Over many seeds every image is first equally often (chi-squared, 9 degrees of freedom)."""
    first = [served(make({0: 4, 1: 6}, batch_size=1, seed=n)[0])[0] for n in range(1000)]
    counts = np.bincount([4 * label + place for label, place in first], minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < 33.7  # p = 1e-4


def test_batches_are_a_pure_function_of_seed_task_and_position():
    sizes = {0: 9, 1: 7, 2: 8}
    expected = [make(sizes)[k] for k in range(20)]
    dataset = loader.shuffled_batches(
        dict(reversed(pools(sizes).items())), batch_size=4, seed=0, task=1
    )
    for k in np.random.RandomState(0).permutation(20).tolist():
        assert_equal(dataset[k], expected[k])
    assert_equal(dataset[10**9], make(sizes)[10**9])
    assert_equal(make(sizes, shared=True)[7], expected[7])


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shards_are_slices_of_the_whole_batch(count):
    sizes = {0: 9, 1: 7, 2: 20}
    whole = make(sizes, batch_size=12)
    shards = [make(sizes, batch_size=12, shard=(index, count)) for index in range(count)]
    for k in (0, 1, 5, 17):
        parts = [shard[k] for shard in shards]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        assert_equal(joined, whole[k])


@pytest.mark.parametrize("shared", [False, True])
def test_one_read_for_each_decoder_and_only_its_own_images(data, shared):
    reads = []

    def lazy(name):
        def read(positions):
            reads.append((name, positions))
            return (np.full((8, 8, 3), position, np.uint8) for position in positions)

        return images.LazyImages(40, read, data())

    one, other = lazy("one"), lazy("other")
    second = one if shared else other
    made = {0: Selection(one, np.arange(10)), 1: Selection(second, np.arange(10, 30))}
    dataset = loader.shuffled_batches(made, batch_size=24, seed=0, task=1, shard=(1, 2))
    batch = dataset[3]
    assert len(reads) == (1 if shared else 2)
    read = sorted(position for _, positions in reads for position in positions)
    assert read == sorted(batch["images"][:, 0, 0, 0].tolist()) and len(read) == 12
    np.testing.assert_array_equal(batch["labels"], batch["images"][:, 0, 0, 0] >= 10)


def test_a_label_without_images_is_passed_over():
    dataset = make({0: 4, 3: 0, 5: 3}, batch_size=7)
    assert {label for label, _ in served(dataset[0])} == {0, 5}


def test_iterate():
    dataset = make({0: 9, 1: 7})
    found = list(loader.iterate(dataset, 2, 9, threads=2, prefetch=3))
    assert len(found) == 7
    for k, batch in enumerate(found, start=2):
        assert_equal(batch, dataset[k])


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ({}, {}, "no labels to train on"),
        ({2: 0, 7: 0}, {}, "no label has images; a task needs at least one"),
        ({0: 4}, {"batch_size": 0}, "batch_size=0; must be at least 1"),
        ({0: 4}, {"seed": -1}, "seed=-1: 0 or more is needed"),
        ({0: 4}, {"shard": (0, 3)}, "batch_size=4 does not divide over 3 shards; use a multiple"),
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
        loader.shuffled_batches(mixed, batch_size=2, seed=0, task=1)
