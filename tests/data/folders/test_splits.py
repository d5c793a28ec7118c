"""Which folder is the training set, which the test set, and which names are refused."""

import os
import shutil
import unicodedata

import numpy as np
import pytest

from flcl import settings
from flcl.data import sources
from flcl.data.folders import splits
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import TaskData


def fill(root, picture, *folders, count=3):
    """Every picture has another content: its red and green count."""
    number = len(list(root.rglob("*.png")))
    for folder in folders:
        for file in range(count):
            picture(root / folder / f"{file}.png", (number % 256, number // 256, 7))
            number += 1


def both(*parts):
    return [f"{part}/{name}" for part in parts for name in ("cat", "dog")]


def load(root, data, **values):
    return sources.load_source(data(source=f"folder:{root}", **values))


def told(source) -> str:
    tasks = TaskData(source, make_stream(settings.Stream(tasks="1"), source))
    return tasks.summary().partition(": ")[2]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "Test"), ("TRAIN", "VAL"), ("training_set", "test_set"),
        ("trainset", "valset"), ("Training-Images", "Validation"), ("train2017", "val2017"),
        ("imgs_train", "imgs_test"), ("01 train", "02 test"), ("TrainData", "TestData"),
        ("train", "valid"), ("training", "dev"), ("trainval", "testing"),
        ("\uff34rain", "held-out"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_split_is_that_split(train, test, tmp_path, picture, data):
    fill(tmp_path, picture, *both(train), count=3)
    fill(tmp_path, picture, *both(test), count=2)
    source = load(tmp_path, data)
    assert source.class_names == ("cat", "dog") and source.domain_names == ()
    np.testing.assert_array_equal(source.train.images[:, 0, 0, 0], range(6))
    np.testing.assert_array_equal(source.test.images[:, 0, 0, 0], range(6, 10))
    plain = (train, test) == ("train", "test")
    note = "" if plain else f"; {train}/ is for training and {test}/ for testing"
    assert told(source) == f"2 classes, 6 training and 4 test images, 1 task{note}"
    # An evaluation must not count training images.
    found = []
    spec = f"folder:{tmp_path}"
    evaluated, _ = sources.load_labelled(spec, data(), ("cat", "dog"), say=found.append)
    np.testing.assert_array_equal(evaluated.images, source.test.images)
    assert found == [f"{spec}: 2 classes, 4 images; only {test}/ is read"]


def test_validation_images_are_not_read_beside_test_images(tmp_path, picture, data):
    fill(tmp_path, picture, *both("train", "test", "val", "extra"))
    source = load(tmp_path, data)
    np.testing.assert_array_equal(source.test.images[:, 0, 0, 0], range(6, 12))
    assert source.notes == ("not read: val/, extra/",)


@pytest.mark.parametrize(
    "names",
    [
        ("train_clean", "test_clean"), ("x_train", "x_val"), ("trainA", "testA"), ("trian", "tset"),
        ("training.v2", "testing.v3"), ("fold1", "fold2"), ("gallery", "query"),
        ("seen", "unseen"), ("part_a", "part_b", "part_c"), ("tr", "te"), ("img_tr", "img_va"),
        ("learn", "exam"), ("fit", "predict"), ("\u8bad\u7ec3\u96c6", "\u6d4b\u8bd5\u96c6"),
        ("entrenamiento", "prueba"), ("Entra\u00eenement", "essais"), ("treino", "teste"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labelled", [False, True])
def test_names_that_look_like_a_split_are_refused(names, labelled, tmp_path, picture, data):
    fill(tmp_path, picture, *both(*names))
    with pytest.raises(ValueError, match=r"look like parts of a split, .*; name them train/ and"):
        if labelled:
            sources.load_labelled(f"folder:{tmp_path}", data(), ("cat", "dog"))
        else:
            load(tmp_path, data)


@pytest.mark.parametrize("inside", ["data", "cat"])
def test_a_split_below_the_top_is_refused(inside, tmp_path, picture, data):
    fill(tmp_path, picture, *both(f"{inside}/train", f"{inside}/test"))
    message = f"'{inside}' holds 'test' and 'train', .*; name folder:{tmp_path}/{inside}, or"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, data)


def test_two_folders_of_one_kind_are_refused(tmp_path, picture, data):
    fill(tmp_path, picture, *both("train", "valid", "validation"))
    with pytest.raises(ValueError, match="'valid' and 'validation' are both names of a test set"):
        load(tmp_path, data)
    fill(tmp_path, picture, *both("Training", "test"))
    with pytest.raises(ValueError, match="'train' are both names of a training set"):
        load(tmp_path, data)


@pytest.mark.parametrize(
    "folders",
    [
        ("valid", "invalid"),  # coins
        ("tr", "te", "us"),  # countries
        ("test_tube", "train_station", "cup"),
        ("ink/train", "ink/bus", "real/train", "real/bus"),  # a train is a vehicle
        ("train/train", "train/bus", "test/train", "test/bus"),
    ],
)
def test_classes_may_have_the_name_of_a_split(folders, tmp_path, picture, data):
    fill(tmp_path, picture, *folders)
    names = {folder.rpartition("/")[2] for folder in folders}
    assert load(tmp_path, data).class_names == tuple(sorted(names))


def test_an_evaluation_refuses_training_images_alone(tmp_path, picture, data):
    fill(tmp_path, picture, *both("Train"))
    message = f"Train/ is there but no test set is; .* name folder:{tmp_path}/Train"
    with pytest.raises(ValueError, match=message):
        sources.load_labelled(f"folder:{tmp_path}", data(), ("cat", "dog"))


def test_the_kinds_of_names():
    for name in ("valley", "trainer", "photo", "devil", "contest", "retest", "set", "2017", "cat"):
        assert splits.kind_of(name) is None, name
    assert splits.kind_of("my-Test.set_3") == "test" and splits.kind_of("HOLD OUT") == "val"


def tiny_imagenet(root, picture):
    fill(root, picture, "train/n01/images", "train/n02/images", "val/images", "test/images")
    (root / "train" / "n01" / "n01_boxes.txt").write_text("0 0 1 1")
    (root / "val" / "val_annotations.txt").write_text("0.png n01")


def test_classes_that_differ_in_capital_letters_alone_are_said(tmp_path, picture, data):
    fill(tmp_path, picture, "Cat", "cat", "dog")
    source = load(tmp_path, data)
    assert source.class_names == ("Cat", "cat", "dog")
    assert source.notes[-1] == "'Cat' and 'cat' are two classes"
    assert told(source).endswith("; 'Cat' and 'cat' are two classes")


def test_a_folder_of_images_inside_a_class_folder(tmp_path, picture, data):
    tiny_imagenet(tmp_path, picture)
    with pytest.raises(ValueError, match=r"val/ has no class folders.* to val/<class>/<image>"):
        load(tmp_path, data)
    shutil.rmtree(tmp_path / "val" / "images")
    fill(tmp_path, picture, "val/n01", "val/n02/images", count=2)
    source = load(tmp_path, data)
    assert source.class_names == ("n01", "n02") and source.domain_names == ()
    np.testing.assert_array_equal(source.train.images[:, 0, 0, 0], range(6))
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 2])
    assert source.notes == ("train/ is for training and val/ for testing", "not read: test/")
    picture(tmp_path / "train" / "n01" / "beside.jpg")
    with pytest.raises(ValueError, match="'train/n01' holds the image 'beside.jpg' and the folder"):
        load(tmp_path, data)


def test_a_name_in_two_unicode_forms_is_one_class_and_one_domain(tmp_path, picture, data):
    composed, apart = (unicodedata.normalize(form, "Möwe") for form in ("NFC", "NFD"))
    for name, pictures in ((composed, "ad"), (apart, "bc")):
        for file in pictures:
            picture(tmp_path / "train" / name / f"{file}.png", (ord(file), 0, 0))
    fill(tmp_path, picture, f"test/{apart}")
    source = load(tmp_path, data, memory_gib=0.0)
    assert source.class_names == (composed,)
    assert [name[-5] for name in source.train.images.names] == ["a", "b", "c", "d"]
    fill(tmp_path / "d", picture, f"{composed}/cat", f"{apart}/dog", f"{apart}/cat")
    source = load(tmp_path / "d", data)
    assert source.domain_names == (composed,) and source.class_names == ("cat", "dog")
    assert len(source.train.labels) + len(source.test.labels) == 9


@pytest.mark.parametrize("place", [b"caf\xe9", b"cat/\xff.png"])
def test_a_name_that_is_not_utf8_is_refused_by_its_bytes(place, tmp_path, picture, data):
    fill(tmp_path, picture, "cat", "dog")
    source = "cat/0.png" if b"/" in place else "cat"
    try:
        os.rename(tmp_path / source, bytes(tmp_path) + b"/" + place)
    except OSError:
        pytest.skip("this file system accepts UTF-8 only")
    with pytest.raises(ValueError) as caught:
        load(tmp_path, data)
    shown = repr(place.rpartition(b"/")[2])
    assert f"the name {shown} in " in str(caught.value) and "is not UTF-8" in str(caught.value)
    str(caught.value).encode()


def test_a_domain_may_lack_a_class(tmp_path, picture, data):
    fill(tmp_path, picture, "train/ink/cat", "train/ink/dog", "train/oil/cat")
    fill(tmp_path, picture, *both("test/ink", "test/oil"))
    source = load(tmp_path, data)
    cells = np.stack([source.train.labels, source.train.domains])
    assert {tuple(cell) for cell in cells.T.tolist()} == {(0, 0), (1, 0), (0, 1)}
    stream = make_stream(settings.Stream(scenario="dil", tasks="domains"), source)
    assert len(stream.tasks) == 2


def test_equal_content_on_both_sides_is_counted(tmp_path, picture, data):
    fill(tmp_path, picture, *both("train", "test"))
    for copy in ("dog/y", "dog/z"):
        shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / f"{copy}.png")
    note = (
        "2 test images are also in the training set, with the same content, such as test/dog/y.png"
    )
    for memory_gib in (1.0, 0.0):
        for _ in range(2):  # the second time from what is remembered
            assert load(tmp_path, data, memory_gib=memory_gib).notes == (note,)
