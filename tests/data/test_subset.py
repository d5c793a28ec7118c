"""Fewer images per class and domain: which ones, and that nothing else is decoded."""

import collections

import numpy as np
import pytest

from flcl.data import base, images, sources, subset
from flcl.data.arrays import npz


def make(count=200, classes=3, domains=2) -> base.Split:
    """Pixel [0, 0] tells an image's place."""
    random = np.random.RandomState(1)
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return base.make_split(
        pixels, random.randint(0, classes, count), random.randint(0, domains, count)
    )


def places(split: base.Split) -> list[int]:
    return np.asarray(split.images)[:, 0, 0, 0].tolist()


def cells(split: base.Split) -> collections.Counter:
    return collections.Counter(zip(split.labels.tolist(), split.domains.tolist(), strict=True))


@pytest.mark.parametrize("most", [1, 7, 33, 1000])
def test_each_class_and_domain_keeps_so_many(most):
    whole = make()
    kept = subset.per_class(whole, most, "train")
    assert cells(kept) == {cell: min(count, most) for cell, count in cells(whole).items()}
    assert places(kept) == sorted(places(kept))
    np.testing.assert_array_equal(kept.labels, whole.labels[places(kept)])
    np.testing.assert_array_equal(kept.domains, whole.domains[places(kept)])


def test_zero_keeps_everything():
    whole = make()
    assert subset.per_class(whole, 0, "train") is whole


def test_the_choice_is_fixed_nested_and_scattered():
    whole = make()
    small, large = (places(subset.per_class(whole, most, "train")) for most in (5, 9))
    assert set(small) < set(large)
    assert small == places(subset.per_class(whole, 5, "train"))
    assert small != places(subset.per_class(whole, 5, "test"))
    firsts = [n for cell in cells(whole) for n in np.flatnonzero(
        (whole.labels == cell[0]) & (whole.domains == cell[1]))[:5]]  # fmt: skip
    assert small != sorted(firsts)
    # A permutation written out: that of a seed made of part, class and domain.
    rows = np.flatnonzero((whole.labels == 2) & (whole.domains == 1))
    chosen = rows[np.random.RandomState([0, 2, 1]).permutation(len(rows))[:5]]
    kept = subset.per_class(whole, 5, "train")
    here = (kept.labels == 2) & (kept.domains == 1)
    assert [p for p, h in zip(places(kept), here, strict=True) if h] == sorted(chosen)


def test_an_empty_split_stays_empty():
    empty = base.placeholder(3).train
    assert len(subset.per_class(empty, 4, "test").labels) == 0


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
def test_only_what_is_kept_is_decoded(tmp_path, picture, data, monkeypatch, memory_gib):
    for part in ("train", "test"):
        for domain in ("photo", "sketch"):
            for name, red in (("ant", 10), ("bee", 200)):
                for number in range(6):
                    colour = (red, 20 * number, 99 if domain == "photo" else 0)
                    picture(tmp_path / part / domain / name / f"{number}.png", colour)
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda f, *rest: decoded.append(f) or decode(f, *rest))
    made = data(
        source=f"folder:{tmp_path}",
        train_per_class=2,
        test_per_class=1,
        memory_gib=memory_gib,
        verify="off",
    )
    source = sources.load_source(made)
    assert set(cells(source.train).values()) == {2} and set(cells(source.test).values()) == {1}
    pixels = source.train.images[np.arange(8)]
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], np.where(source.train.labels, 200, 10))
    np.testing.assert_array_equal(pixels[:, 0, 0, 2], np.where(source.train.domains, 0, 99))
    if memory_gib:
        assert len(decoded) == 8 + 4
    else:
        assert isinstance(source.test.images, images.LazyImages) and len(decoded) == 8


def test_arrays_are_cut_too(tmp_path, data):
    pixels = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    content = {"train_images": pixels, "test_images": pixels}
    labels = {"train_labels": np.arange(20) % 2, "test_labels": np.arange(20) % 2}
    np.savez(tmp_path / "x.npz", **content, **labels)
    made = data(source=f"npz:{tmp_path}/x.npz", train_per_class=3)
    source = sources.load_source(made)
    assert source.train.images.shape == (6, 8, 8, 3) and source.test.images.shape == (20, 8, 8, 3)
    whole = npz.from_arrays("x", {**content, **labels}, made).train
    expected = subset.per_class(whole, 3, "train")
    np.testing.assert_array_equal(source.train.images, expected.images)
