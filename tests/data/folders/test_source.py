"""Class folders: layouts, the hash split, and everything that can be wrong with them."""

import hashlib
import os
import shutil
import unicodedata

import numpy as np
import pytest

from flcl.data import images, sources
from flcl.data.folders import layout
from flcl.data.folders import source as folders

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


def split_paths(root, data, **values) -> dict[str, set[str]]:
    """Files of both splits."""
    source = load(root, data, memory_gib=0.0, verify="off", **values)
    return {"train": set(source.train.images.names), "test": set(source.test.images.names)}


def below(text: str, share: float) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) < share * 2**64


def test_hash_split(tmp_path, picture, data):
    grow(tmp_path, picture, parts=("",), count=40)
    paths = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")}
    expected = {path for path in paths if below(path, 0.3)}
    assert 0.15 * len(paths) < len(expected) < 0.45 * len(paths)
    parts = split_paths(tmp_path, data, test_fraction=0.3)
    assert parts["test"] == expected
    assert parts["train"] == paths - expected


def test_a_picture_is_on_one_side_in_all_domains(tmp_path, picture, data):
    grow(tmp_path, picture, parts=("",), domains=("photo", "sketch"), count=40)
    for file in (tmp_path / "sketch").rglob("*.png"):
        file.rename(file.with_suffix(".PNG"))
    paths = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    tested = {path for path in paths if below(path.partition("/")[2][:-4], 0.3)}
    assert 0.15 * len(paths) < len(tested) < 0.45 * len(paths)
    parts = split_paths(tmp_path, data, test_fraction=0.3)
    assert parts == {"train": paths - tested, "test": tested}
    assert load(tmp_path, data).split_rule == folders.BY_PICTURE


@pytest.mark.parametrize("fraction", [1e-9, 0.3, 1 - 1e-9])
def test_every_domain_with_two_pictures_has_both_sides(tmp_path, picture, data, fraction):
    for domain, names in {"photo": "abc", "sketch": "cd", "ink": "e"}.items():
        for name in names:
            picture(tmp_path / domain / "ant" / f"{name}.png")
    parts = split_paths(tmp_path, data, test_fraction=fraction)
    sides = [{path.partition("/")[0] for path in parts[part]} for part in ("train", "test")]
    assert {"photo", "sketch"} <= sides[0] & sides[1] and "ink" in sides[0] | sides[1]
    pictures = [{path[-5:] for path in parts[part]} for part in ("train", "test")]
    assert not pictures[0] & pictures[1] and len(pictures[0] | pictures[1]) == 5


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
    monkeypatch.setattr(layout.os, "scandir", Backwards)
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
    for path in (".DS_Store", "train/.cache", "train/ant/.hidden.png", "test/bee/thumbs.db",
                 "test/bee/Desktop.INI", "train/ant/0.png:Zone.Identifier"):  # fmt: skip
        (tmp_path / path).write_text("nothing")
    for path in (".git", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "ant/@eaDir", "ant/__macosx"):
        picture(tmp_path / "train" / path / "ant" / "0.png")
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
