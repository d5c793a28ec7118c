"""Class folders: layouts, the hash split, and everything that can be wrong with them."""

import hashlib
import os
import shutil
import unicodedata

import numpy as np
import pytest

from flcl.data import folders, images, sources

COLOURS = {"ant": 10, "bee": 120, "cow": 240}


def grow(root, picture, parts=("train", "test"), domains=("",), count=3):
    """{part}/{domain}/{class}/{number}.png, the class told by its red, the domain by its green."""
    for part in parts:
        for green, domain in enumerate(domains):
            for name, red in COLOURS.items():
                for number in range(count):
                    colour = (red, 50 * green, 40 if part == "test" else 200)
                    picture(root / part / domain / name / f"{number}.png", colour)
    return root


def check(split, blue=None):
    """Each label and domain belongs to the colour of its image."""
    pixels = split.images[np.arange(len(split.images))][:, 4, 4].astype(int)
    np.testing.assert_array_equal(pixels[:, 0], np.array(list(COLOURS.values()))[split.labels])
    np.testing.assert_array_equal(pixels[:, 1], 50 * split.domains)
    if blue is not None:
        assert set(pixels[:, 2]) == {blue}


def load(root, data, **values):
    return sources.load_source(data(source=f"folder:{root}", **values))


def test_train_and_test_folders(tmp_path, picture, data):
    source = load(grow(tmp_path, picture), data)
    assert source.class_names == ("ant", "bee", "cow") and source.domain_names == ()
    assert source.train.images.shape == source.test.images.shape == (9, 8, 8, 3)
    assert source.train.labels.dtype == source.train.domains.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(source.train.labels), [3, 3, 3])
    check(source.train, 200)
    check(source.test, 40)


def test_train_and_test_folders_of_domains(tmp_path, picture, data):
    grow(tmp_path, picture, domains=("photo", "sketch"))
    source = load(tmp_path, data)
    assert source.class_names == ("ant", "bee", "cow")
    assert source.domain_names == ("photo", "sketch")
    np.testing.assert_array_equal(np.bincount(source.test.domains), [9, 9])
    check(source.train, 200)
    check(source.test, 40)


def split_paths(tmp_path, data, monkeypatch, **values) -> dict[str, set[str]]:
    """Files of both splits, told by reading lazily."""
    seen = []

    def decode(path, name, settings):
        seen.append(path.relative_to(tmp_path).as_posix())
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(images, "decode", decode)
    source = load(tmp_path, data, memory_gib=0.0, **values)
    parts = {}
    for part in ("train", "test"):
        seen.clear()
        split = getattr(source, part)
        split.images[np.arange(len(split.images))]
        parts[part] = set(seen)
    return parts


@pytest.mark.parametrize("domains", [("",), ("photo", "sketch")])
def test_hash_split(tmp_path, picture, data, monkeypatch, domains):
    grow(tmp_path, picture, parts=("",), domains=domains, count=40)
    paths = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")}
    expected = {
        path
        for path in paths
        if int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) < 0.3 * 2**64
    }
    assert 0.15 * len(paths) < len(expected) < 0.45 * len(paths)
    parts = split_paths(tmp_path, data, monkeypatch, test_fraction=0.3)
    assert parts["test"] == expected
    assert parts["train"] == paths - expected


def test_hash_split_has_the_right_labels(tmp_path, picture, data):
    source = load(grow(tmp_path, picture, parts=("",), domains=("a", "b"), count=9), data)
    assert len(source.train.images) + len(source.test.images) == 54
    check(source.train)
    check(source.test)


def test_hash_split_does_not_depend_on_place_or_listing_order(tmp_path, picture, data, monkeypatch):
    one = grow(tmp_path / "one", picture, parts=("",), count=20)
    other = tmp_path / "elsewhere" / "other"
    shutil.copytree(one, other)
    listed = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = list(listed(path))[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    first = load(one, data, test_fraction=0.3)
    monkeypatch.setattr(folders.os, "scandir", Backwards)
    second = load(other, data, test_fraction=0.3)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)


def test_accented_names_are_the_same_on_every_system(tmp_path, picture, data):
    splits = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        name = unicodedata.normalize(form, "Möwe")
        for number in range(12):
            picture(root / name / f"{number}.png", (number, 0, 0))
            picture(root / "Star" / f"{number}.png", (100 + number, 0, 0))
        splits.append(load(root, data))
    assert splits[0].class_names == splits[1].class_names == ("Möwe", "Star")
    np.testing.assert_array_equal(splits[0].test.images, splits[1].test.images)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_every_class_is_trained_and_tested_on(tmp_path, picture, data, fraction):
    grow(tmp_path, picture, parts=("",), count=2)
    source = load(tmp_path, data, test_fraction=fraction)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(source.test.labels), [1, 1, 1])


def test_hidden_and_system_files_are_not_read(tmp_path, picture, data):
    grow(tmp_path, picture)
    for path in (".DS_Store", "train/.cache", "train/ant/.hidden.png", "test/bee/Thumbs.db"):
        (tmp_path / path).write_text("nothing")
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "labels.csv").write_text("beside the folders")
    assert len(load(tmp_path, data).train.images) == 9


def test_lazy_images_equal_kept_ones(tmp_path, picture, data):
    grow(tmp_path, picture)
    lazy, kept = load(tmp_path, data, memory_gib=0.0), load(tmp_path, data)
    assert isinstance(lazy.train.images, images.LazyImages)
    assert isinstance(kept.train.images, np.ndarray)
    np.testing.assert_array_equal(lazy.train.images[np.arange(9)], kept.train.images)


def test_sizes_are_fitted_or_refused(tmp_path, picture, data):
    grow(tmp_path, picture)
    picture(tmp_path / "train" / "bee" / "odd.png", (120, 0, 200), size=(20, 11))
    check(load(tmp_path, data).train, 200)
    with pytest.raises(ValueError, match=r"bee/odd\.png: the image is 20x11 .*image_size=8"):
        load(tmp_path, data, resize=False)


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
def test_unreadable_images_are_named(tmp_path, picture, data, memory_gib):
    grow(tmp_path, picture)
    bad = tmp_path / "train" / "cow" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"train/cow/0\.png: no readable image"):
        source = load(tmp_path, data, memory_gib=memory_gib)
        assert memory_gib == 0.0, "kept images must be decoded at once"
        source.train.images[np.arange(9)]


def missing_root(root, picture):
    return "no such folder"


def empty_root(root, picture):
    root.mkdir()
    return "no class folders"


def images_without_folders(root, picture):
    picture(root / "1.png")
    return "no class folders"


def train_alone(root, picture):
    grow(root, picture, parts=("train",))
    return "train/ is there but test/ is not"


def test_alone(root, picture):
    grow(root, picture, parts=("test",))
    return "test/ is there but train/ is not"


test_alone.__test__ = False


def empty_train_class(root, picture):
    grow(root, picture)
    for file in (root / "train" / "bee").iterdir():
        file.unlink()
    return r"class 'bee' has no images in train/bee/"


def empty_test_class(root, picture):
    grow(root, picture)
    for file in (root / "test" / "cow").iterdir():
        file.rename(file.with_name(f".{file.name}"))
    return r"class 'cow' has no images in test/cow/"


def empty_class_to_split(root, picture):
    grow(root, picture, parts=("",))
    (root / "newt").mkdir()
    return r"class 'newt' has no images in newt/"


def empty_class_of_a_domain(root, picture):
    grow(root, picture, domains=("photo", "sketch"))
    for file in (root / "train" / "sketch" / "ant").iterdir():
        file.unlink()
    return r"class 'ant' has no images in train/sketch/ant/"


def lone_image(root, picture):
    grow(root, picture, parts=("",))
    picture(root / "newt" / "1.png")
    return r"class 'newt' has one image only \(newt/1.png\)"


def class_not_tested(root, picture):
    grow(root, picture)
    picture(root / "train" / "newt" / "1.png")
    return "class folder 'newt' is in train/ but not in test/"


def class_not_trained(root, picture):
    grow(root, picture)
    picture(root / "test" / "newt" / "1.png")
    return "class folder 'newt' is in test/ but not in train/"


def class_missing_in_a_domain(root, picture):
    grow(root, picture, parts=("",), domains=("photo", "sketch"))
    shutil.rmtree(root / "sketch" / "bee")
    return "class folder 'bee' is in photo/ but not in sketch/"


def domain_not_tested(root, picture):
    grow(root, picture, domains=("photo", "sketch"))
    shutil.rmtree(root / "test" / "photo")
    return "domain folder 'photo' is in train/ but not in test/"


def two_layouts(root, picture):
    grow(root, picture, parts=("train",))
    grow(root, picture, parts=("test",), domains=("photo", "sketch"))
    return "one of train/ and test/ holds <class>/<image>"


def folders_beside_images(root, picture):
    grow(root, picture, parts=("",))
    picture(root / "photo" / "ant" / "1.png")
    return "'photo' holds folders and 'ant' holds files"


def too_deep(root, picture):
    picture(root / "photo" / "ant" / "old" / "1.png")
    return "'photo/ant' holds the folder 'old'"


WRONG = [
    missing_root,
    empty_root,
    images_without_folders,
    train_alone,
    test_alone,
    empty_train_class,
    empty_test_class,
    empty_class_to_split,
    empty_class_of_a_domain,
    lone_image,
    class_not_tested,
    class_not_trained,
    class_missing_in_a_domain,
    domain_not_tested,
    two_layouts,
    folders_beside_images,
    too_deep,
]


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_errors_name_the_folder(spoil, tmp_path, picture, data):
    message = spoil(tmp_path / "pets", picture)
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "pets", data)
    assert str(caught.value).startswith("folder:") and "\n" not in str(caught.value)
