"""Arrays in a .npz file, right and wrong."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flcl.data import images, sources
from flcl.data.arrays import npz
from flcl.storage import npz as storage

BAD_DISK = Path("/proc/self/mem")  # a regular file on Linux; every read of its start fails


def content(size=8, channels=3, **changes) -> dict[str, np.ndarray]:
    """3 classes, 4 training and 2 test images of each; `name=None` leaves an array out."""
    shape = (size, size) if channels is None else (size, size, channels)
    random = np.random.RandomState(0)
    found = {
        "train_images": random.randint(0, 256, (12, *shape)).astype(np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": random.randint(0, 256, (6, *shape)).astype(np.uint8),
        "test_labels": np.arange(6) % 3,
        **changes,
    }
    return {name: values for name, values in found.items() if values is not None}


@pytest.fixture
def load(tmp_path, data):
    def run(values: dict[str, np.ndarray], **keys):
        np.savez(tmp_path / "x.npz", **values)
        return sources.load_source(data(source=f"npz:{tmp_path}/x.npz", **keys))

    return run


def test_arrays_are_taken_as_they_are(load):
    values = content(class_names=np.array(["a", "b", "c"]))
    source = load(values, resize=False)
    np.testing.assert_array_equal(source.train.images, values["train_images"])
    np.testing.assert_array_equal(source.test.images, values["test_images"])
    np.testing.assert_array_equal(source.train.labels, values["train_labels"])
    assert source.class_names == ("a", "b", "c") and source.domain_names == ()
    assert not source.train.domains.any() and source.train.labels.dtype == np.int32


def test_classes_without_names_are_numbered(load):
    assert load(content()).class_names == ("0", "1", "2")


def test_domains(load):
    values = content(train_domains=np.arange(12) % 2, test_domains=np.ones(6, np.uint8))
    source = load(values)
    assert source.domain_names == ("0", "1")
    np.testing.assert_array_equal(source.train.domains, np.arange(12) % 2)
    values["domain_names"] = np.array(["photo", "sketch"])
    assert load(values).domain_names == ("photo", "sketch")


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("wanted", [1, 3])
def test_size_and_channels_are_converted(load, data, channels, wanted):
    values = content(size=12, channels=channels)
    source = load(values, channels=wanted)
    assert source.train.images.shape == (12, 8, 8, wanted)
    pixels = values["train_images"].reshape(12, 12, 12, -1)
    expected = [images.convert(image, "x", data(channels=wanted)) for image in pixels]
    np.testing.assert_array_equal(source.train.images, np.stack(expected))


def test_beyond_the_memory_limit_images_are_converted_when_asked_for(load):
    lazy = load(content(size=12), memory_gib=0.0)
    assert isinstance(lazy.train.images, images.LazyImages)
    kept = load(content(size=12))
    np.testing.assert_array_equal(lazy.train.images[np.arange(12)], kept.train.images)


def test_arrays_in_memory_need_no_file(data):
    source = npz.from_arrays("mine", content(), data())
    assert source.name == "mine" and len(source.train.images) == 12


WRONG = {
    "another size": (content(size=9), r"train_images\[0\]: the image is 9x9 .*image_size=8"),
    "missing": (content(test_labels=None), "'test_labels' is missing; needed are train_images,"),
    "unknown": (content(class_name=np.array(["a"])), "Did you mean 'class_names'?"),
    "lengths": (content(train_labels=np.zeros(11, int)), r"train_labels has shape \[11\].*12"),
    "rows": (content(test_labels=np.zeros((1, 6), int)), r"test_labels has shape \[1, 6\].* 1\]$"),
    "one hot": (
        content(train_labels=np.eye(3, dtype=int)[np.arange(12) % 3]),
        r"train_labels has shape \[12, 3\].*\[12, 1\]; .* one-hot rows need argmax\(1\)",
    ),
    "floats": (
        content(test_images=np.zeros((6, 8, 8, 3), np.float32)),
        r"test_images is float32 with values from 0 to 0; uint8 with values 0 to 255.*\* 255",
    ),
    "sixteen bit": (
        content(train_images=np.full((12, 8, 8), 999, np.uint16)),
        "uint16 with values from 999 to 999; uint8 .*// 257",
    ),
    "channels first": (
        content(train_images=np.zeros((12, 3, 8, 8), np.uint8)),
        r"train_images has shape \[12, 3, 8, 8\]; \[N, H, W\].*come last: .*\(0, 2, 3, 1",
    ),
    "no pixels": (content(train_images=np.zeros((12, 0, 8), np.uint8)), r"\[12, 0, 8\]"),
    "five channels": (content(test_images=np.zeros((6, 8, 8, 5), np.uint8)), "1 to 4 channels"),
    "no axes": (content(test_images=np.uint8(3)), r"test_labels has shape \[6\].*holds 1 images"),
    "float labels": (content(train_labels=np.zeros(12)), "train_labels is float64; integers"),
    "text labels": (content(train_labels=np.array(["a"] * 12)), "train_labels is <U1; integers"),
    "negative": (content(train_labels=np.arange(12) % 3 - 1), "train_labels holds -1"),
    "too large": (
        content(class_names=np.array(["a", "b"])),
        "train_labels holds 2; accepted are 0 to 1",
    ),
    "no test image": (
        content(test_images=np.zeros((0, 8, 8), np.uint8), test_labels=np.zeros(0, np.uint8)),
        "class '0' has no test images",
    ),
    "flags": (content(test_labels=np.arange(6) % 2 == 1), "test_labels is bool; integers"),
    "surrogates": (
        content(class_names=np.array(["a", "b", "\ud800"])),
        "class_names holds what is",
    ),
    "beyond all characters": (
        content(class_names=np.full((3, 1), 0x7FFFFFFF, "u4").view("U1")[:, 0]),
        "class_names holds what is no text",
    ),
    "no names": (content(class_names=np.array([], "U1")), "class_names is empty"),
    "names": (content(class_names=np.arange(3)), r"class_names is int64 \[3\]; one string"),
    "empty name": (content(class_names=np.array(["a", "", "b"])), "class_names holds an empty"),
    "two forms": (
        content(class_names=np.array(["caf\u00e9", "cafe\u0301", "b"])),
        "class_names holds 'caf\u00e9' twice",
    ),
    "same name": (content(class_names=np.array(["a", "b", "a"])), "class_names holds 'a' twice"),
    "untrained": (content(train_labels=np.arange(12) % 2), "class '2' has no training images"),
    "untested": (content(test_labels=np.arange(6) % 2), "class '2' has no test images"),
    "nameless": (
        content(class_names=np.array(["a", "b", "c", "newt"])),
        "class 'newt' has no training images",
    ),
    "half": (content(train_domains=np.zeros(12, int)), "'test_domains' is missing"),
    "domains": (
        content(train_domains=np.zeros(12, int), test_domains=np.zeros(5, int)),
        r"test_domains has shape \[5\]",
    ),
    "objects": (content(class_names=np.array(["a", None])), "without object arrays"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_array(case, load):
    values, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        load(values, resize=False)
    assert str(caught.value).startswith("npz:") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">i4", ">u8"])
def test_numbers_of_every_integer_type(kind, load):
    labels = {"train_labels": np.arange(12) % 3, "test_labels": np.arange(6) % 3}
    domains = {"train_domains": np.arange(12) % 2, "test_domains": np.arange(6) % 2}
    expected = load(content(**labels, **domains))
    for columns in (1, 0):
        given = {k: v.astype(kind) for k, v in {**labels, **domains}.items()}
        if columns:
            given = {k: v[:, None] for k, v in given.items()}
        # One array alone, too: NumPy joins int64 and uint64 to float64.
        for changes in (given, {"test_labels": given["test_labels"], **domains}):
            source = load(content(**changes))
            assert source.class_names == ("0", "1", "2") and source.domain_names == ("0", "1")
            for part in ("train", "test"):
                split, wanted = getattr(source, part), getattr(expected, part)
                for values in ("labels", "domains"):
                    assert getattr(split, values).dtype == np.int32
                    np.testing.assert_array_equal(getattr(split, values), getattr(wanted, values))


@pytest.mark.parametrize("number", [3_000_000_000, 2**31, 2**63, 2**64 - 1, 100_000])
@pytest.mark.parametrize("key", ["train_labels", "test_labels", "train_domains", "test_domains"])
def test_huge_numbers_are_one_line_at_once(load, key, number):
    values = content(train_domains=np.arange(12) % 2, test_domains=np.arange(6) % 2)
    values[key] = values[key].astype(np.uint64)
    values[key][3] = number
    names = "class_names" if "labels" in key else "domain_names"
    message = f"npz:.*: {key} holds {number}; accepted are 0 to 99999 without {names}$"
    with pytest.raises(ValueError, match=message):
        load(values)
    values[names] = np.array(["a", "b", "c"][: 3 if "labels" in key else 2])
    with pytest.raises(ValueError, match=f"{key} holds {number}; accepted are 0 to [12]$"):
        load(values)


def test_numbers_that_start_at_1_are_refused(load):
    labels = {
        "train_labels": np.arange(12) % 3 + 1,
        "test_labels": np.arange(6, dtype="u1") % 3 + 1,
    }
    message = (
        "x.npz: train_labels and test_labels start at 1; labels are counted from 0, so subtract 1 "
        "from all labels, or add class_names if none has the number 0"
    )
    with pytest.raises(ValueError, match=f"{message}$"):
        load(content(**labels))
    message = "train_labels holds 3; accepted are 0 to 2; labels are counted from 0, so subtract 1"
    with pytest.raises(ValueError, match=message):
        load(content(**labels, class_names=np.array(["a", "b", "c"])))
    domains = {"train_domains": np.arange(12) % 2 + 1, "test_domains": np.arange(6) % 2 + 1}
    with pytest.raises(ValueError, match="test_domains start at 1; domains are counted from 0"):
        load(content(**domains))


def test_labels_of_a_part_of_the_named_classes(load, data, tmp_path):
    """For an evaluation, class 0 may be missing; its name says that the others are right."""
    names = np.array(["ant", "bee", "cow"])
    few = content(train_labels=np.full(12, 1), test_labels=np.arange(6) % 2 + 1, class_names=names)
    np.savez(tmp_path / "x.npz", **few)
    split, _ = sources.load_labelled(f"npz:{tmp_path}/x.npz", data(), ("cow", "bee", "dog", "ant"))
    np.testing.assert_array_equal(split.labels, [1, 0, 1, 0, 1, 0])


def renamed(**names) -> dict[str, np.ndarray]:
    values = content(train_domains=np.arange(12) % 2, test_domains=np.arange(6) % 2)
    return {new: values[old] for new, old in names.items()}


KERAS = {"x_train": "train_images", "y_train": "train_labels",
         "x_test": "test_images", "y_test": "test_labels"}  # fmt: skip
MEDMNIST = {**{key: key for key in KERAS.values()},
            "val_images": "test_images", "val_labels": "test_labels"}  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        KERAS,
        MEDMNIST,
        {key.upper(): value for key, value in KERAS.items()},
        {"train_x": "train_images", "train_y": "train_labels",
         "test_x": "test_images", "test_y": "test_labels"},
        {"training_images": "train_images", "training_labels": "train_labels",
         "testing_images": "test_images", "testing_labels": "test_labels"},
        {"train_data": "train_images", "train_targets": "train_labels",
         "dev_data": "test_images", "dev_targets": "test_labels"},
    ],
)  # fmt: skip
def test_names_of_other_libraries(load, names):
    source, expected = load(renamed(**names)), load(content())
    assert source.class_names == expected.class_names
    for part in ("train", "test"):
        split, wanted = getattr(source, part), getattr(expected, part)
        np.testing.assert_array_equal(split.images, wanted.images)
        np.testing.assert_array_equal(split.labels, wanted.labels)


def test_a_validation_set_is_not_the_test_set_if_there_is_one(load):
    values = content()
    values["val_images"], values["val_labels"] = np.zeros((1, 9)), np.array(["what"])
    np.testing.assert_array_equal(load(values).test.images, content()["test_images"])


def test_messages_have_the_names_of_the_user(load):
    values = renamed(**KERAS)
    with pytest.raises(ValueError, match=r"x.npz: y_test has shape \[5\], but x_test holds 6 im"):
        load({**values, "y_test": values["y_test"][:5]})
    with pytest.raises(ValueError, match="x.npz: x_train is float64 with values from 0 to 255; "):
        load({**values, "x_train": np.linspace(0, 255, 12)})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({**KERAS, "train_images": "train_images"}, "'x_train' and 'train_images' are both train_"),
        ({**MEDMNIST, "valid_images": "test_images"}, "'val_images' and 'valid_images' are both v"),
        ({"arr_0": "train_images"}, "array 'arr_0' is not read; accepted are train_images, train_"),
        ({"images": "train_images"}, "array 'images' is not read; accepted are train_images"),
        ({"x_train_test": "train_images"}, "array 'x_train_test' is not read"),
        ({"x_train": "train_images", "y_train": "train_labels"}, "array 'test_images' is missing"),
    ],
)
def test_other_names_are_refused(load, names, message):
    with pytest.raises(ValueError, match=f"x.npz: {message}"):
        load(renamed(**names))


def test_unused_arrays_are_not_read(load, tmp_path):
    """The names are checked first: an unknown array may be larger than the memory."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("notes.npy", b"no array")
    with pytest.raises(ValueError, match="x.npz: array 'notes' is not read"):
        npz.load_npz(str(tmp_path / "x.npz"), None)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_becomes_white(load, channels):
    values = content()
    for part in ("train", "test"):
        grey = values[f"{part}_images"][..., :1]
        alpha = np.zeros_like(grey)
        alpha[:, ::2] = 255
        values[f"{part}_images"] = np.concatenate([grey] * (channels - 1) + [alpha], -1)
    found = load(values).train.images
    expected = np.repeat(content()["train_images"][..., :1], 3, -1)
    np.testing.assert_array_equal(found[:, ::2], expected[:, ::2])
    assert (found[:, 1::2] == 255).all()


def test_missing_and_damaged_files(tmp_path, data):
    path = tmp_path / "x.npz"
    with pytest.raises(ValueError, match="x.npz: no such file"):
        sources.load_source(data(source=f"npz:{path}"))
    with pytest.raises(ValueError, match="~no_such_user/x.npz': there is no such home"):
        sources.load_source(data(source="npz:~no_such_user/x.npz"))
    np.savez_compressed(path, **content())
    whole = path.read_bytes()
    np.save(tmp_path / "x.npy", np.zeros(3))
    pickled = pickle.dumps([1])
    for damaged in (b"", b"text", whole[:300], (tmp_path / "x.npy").read_bytes(), pickled):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="x.npz: not a readable .npz file"):
            sources.load_source(data(source=f"npz:{path}"))


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


FORGED = {
    "no array": b"text",
    "more than the file has": header("{'descr': '|u1', 'fortran_order': False, 'shape': (99,)}"),
    "more than any memory": header(
        "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999999,)}"
    ),
    "negative": header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"),
    "objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"\x01" * 8,
    "code": header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}"),
    "nested": header("(" * 5000),
    "version": b"\x93NUMPY\x09\x00",
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_forged_arrays_of_a_file_are_one_line(tmp_path, data, case, suffix):
    path = tmp_path / "x.npz"
    np.savez(path, **content(test_labels=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"test_labels{suffix}", FORGED[case])
    message = "x.npz: (not a readable .npz file of plain arrays|too large for the memory of this)"
    with pytest.raises(ValueError, match=message) as caught:
        sources.load_source(data(source=f"npz:{path}"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_small_file_cannot_fill_the_memory(tmp_path, data, monkeypatch):
    monkeypatch.setattr(storage, "_BOMB", 100_000)
    path = tmp_path / "x.npz"
    arrays = content(
        train_images=np.zeros((9000, 8, 8), np.uint8), train_labels=np.zeros(9000, int)
    )
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match=r"x.npz: not a .*\(its [0-9,]+ bytes would unpack to 0.0"):
        sources.load_source(data(source=f"npz:{path}"))
    # The same file with content that needs its room.
    monkeypatch.setattr(storage, "_BOMB", 10_000_000)
    with pytest.raises(ValueError, match="class '1' has no training images"):
        sources.load_source(data(source=f"npz:{path}"))


def test_special_files_are_not_opened(tmp_path, data):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="x.npz: is a named pipe; a regular file is needed"):
        sources.load_source(data(source=f"npz:{tmp_path}/x.npz"))
    with pytest.raises(ValueError, match=": is a folder; a regular file is needed"):
        sources.load_source(data(source=f"npz:{tmp_path}"))


@pytest.mark.skipif(not BAD_DISK.is_file(), reason="needs Linux")
def test_an_error_of_the_disk_is_no_damage(tmp_path, data):
    (tmp_path / "x.npz").symlink_to(BAD_DISK)
    with pytest.raises(OSError, match="x.npz'$"):
        sources.load_source(data(source=f"npz:{tmp_path}/x.npz"))
