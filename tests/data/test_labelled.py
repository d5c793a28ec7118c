"""Labelled images for a finished classifier."""

import numpy as np
import pytest

from flcl.data import images, sources

COLOURS = {"ant": 10, "bee": 120, "cow": 240}
LEARNED = ("cow", "dog", "ant", "bee")  # in the order of the run


def grow(root, picture, *folders, count=3):
    for folder in folders:
        for number in range(count):
            colour = (COLOURS[folder.rpartition("/")[2]], number, 40)
            picture(root / folder / f"{number}.png", colour)


def check(split, count):
    pixels = split.images[np.arange(len(split.labels))][:, 4, 4].astype(int)
    names = [LEARNED[label] for label in split.labels]
    assert [COLOURS[name] for name in names] == pixels[:, 0].tolist()
    assert len(names) == count and split.labels.dtype == np.int32


@pytest.fixture
def load(tmp_path, data):
    def run(folder=tmp_path, **values):
        split, _ = sources.load_labelled(f"folder:{folder}", data(**values), LEARNED)
        return split

    return run


def test_all_images_of_class_folders(tmp_path, picture, load):
    grow(tmp_path, picture, "ant", "bee", count=5)
    (tmp_path / "dog").mkdir()
    check(load(test_per_class=1), 10)
    lazy = load(memory_gib=0.0)
    assert isinstance(lazy.images, images.LazyImages)
    check(lazy, 10)


def test_only_the_test_half_of_a_data_set(tmp_path, picture, load):
    grow(tmp_path, picture, "train/ant", "train/bee", count=4)
    grow(tmp_path, picture, "test/cow", count=2)
    (tmp_path / "train" / "unknown").mkdir()
    check(load(), 2)


def test_class_folders_of_domains_may_differ(tmp_path, picture, data):
    grow(tmp_path, picture, "photo/ant", "photo/bee", "sketch/cow")
    split, domains = sources.load_labelled(f"folder:{tmp_path}", data(), LEARNED)
    check(split, 9)
    assert domains == ("photo", "sketch")
    assert [(LEARNED[c], d) for c, d in zip(split.labels, split.domains, strict=True)][::3] == [
        ("ant", 0), ("bee", 0), ("cow", 1),
    ]  # fmt: skip


def test_a_single_image_is_enough(tmp_path, picture, load):
    grow(tmp_path, picture, "cow", count=1)
    check(load(), 1)


def test_unknown_classes_are_named(tmp_path, picture, load):
    grow(tmp_path, picture, "ant", "cow")
    (tmp_path / "cow").rename(tmp_path / "cowl")
    message = (
        "class 'cowl' is not one of the 4 learned classes; accepted are cow, dog, ant, bee."
        " Did you mean 'cow'?"
    )
    with pytest.raises(ValueError) as caught:
        load()
    assert str(caught.value) == f"folder:{tmp_path}: {message}"


def test_folders_without_anything_are_refused(tmp_path, picture, load):
    with pytest.raises(ValueError, match="no class folders in it"):
        load()
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match="holds no images to evaluate on"):
        load()
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


def test_the_test_set_of_another_source(tmp_path, data):
    pixels = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    content = {"train_images": pixels[:1], "train_labels": [0], "test_images": pixels}
    names = np.array(["bee", "cow", "ant"])
    np.savez(tmp_path / "x.npz", **content, test_labels=[0, 1, 2, 0, 1, 1], class_names=names)
    spec = f"npz:{tmp_path}/x.npz"
    split, domains = sources.load_labelled(spec, data(source="nothing", test_per_class=1), LEARNED)
    assert domains == ()
    np.testing.assert_array_equal(split.images, pixels)
    np.testing.assert_array_equal(split.labels, [3, 0, 2, 3, 0, 0])
    with pytest.raises(
        ValueError, match=r"x.npz: class 'ant' is not one of the 6 .* c0, c1, c2 and so on"
    ):
        sources.load_labelled(spec, data(), ("bee", "cow", *(f"c{n}" for n in range(4))))


def test_equal_names_are_the_same_classes(data):
    names = tuple("0123456789")
    split, _ = sources.load_labelled("digits", data(channels=1), names)
    whole = sources.load_source(data(source="digits", channels=1))
    np.testing.assert_array_equal(split.labels, whole.test.labels)
    np.testing.assert_array_equal(split.images, whole.test.images)


@pytest.mark.parametrize("spec", ["folder", "foldr:x", "digits:", ""])
def test_unknown_sources_are_refused(data, spec):
    with pytest.raises(ValueError, match=rf"^data='{spec}': accepted are digits\[:CL"):
        sources.load_labelled(spec, data(), LEARNED)
