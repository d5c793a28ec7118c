"""Official archives, written here opcode by opcode as Python 2 once did."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest

from flcl.data.archives import numeric


def assert_holds(archive: numeric.Archive, expected: dict) -> None:
    assert archive.parts.keys() == expected.keys() == {"train", "test"}
    for part, (images, labels) in expected.items():
        assert archive.parts[part][0].dtype == np.uint8
        np.testing.assert_array_equal(archive.parts[part][0], images)
        np.testing.assert_array_equal(archive.parts[part][1], labels)


def test_cifar10(tmp_path, official):
    expected = official.cifar10(tmp_path)
    archive = numeric.read_cifar10(tmp_path)
    assert_holds(archive, expected)
    assert archive.class_names == tuple(f"thing {n}" for n in range(10))
    assert archive.parts["train"][0].shape == (100, 32, 32, 3)


def test_cifar100(tmp_path, official):
    expected = official.cifar100(tmp_path)
    archive = numeric.read_cifar100(tmp_path)
    assert_holds(archive, expected)
    assert len(archive.class_names) == 100


def test_fashion_mnist(tmp_path, official):
    expected = official.fashion_mnist(tmp_path)
    archive = numeric.read_fashion_mnist(tmp_path)
    assert_holds(archive, expected)
    assert archive.class_names[8] == "Bag"


def test_every_cut_of_an_archive_is_noticed(tmp_path, official):
    official.cifar10(tmp_path)
    path = tmp_path / numeric.CIFAR10_FILES[0]
    whole = path.read_bytes()
    for share in (0.0, 0.2, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz: (damaged|holds no)"):
            numeric.read_cifar10(tmp_path)


def test_archive_of_something_else(tmp_path, official):
    official.cifar100(tmp_path)
    wrong = (tmp_path / numeric.CIFAR100_FILES[0]).rename(tmp_path / numeric.CIFAR10_FILES[0])
    with pytest.raises(ValueError, match=f"{wrong.name}: holds no cifar-10-batches-py/"):
        numeric.read_cifar10(tmp_path)


def pack(tmp_path, batch: bytes, names=("a", "b")) -> None:
    """A CIFAR-100 archive whose training batch is `batch`."""
    test = {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [1]}
    rest = pickle.dumps({"fine_label_names": names, **test}, 4)
    with tarfile.open(tmp_path / numeric.CIFAR100_FILES[0], "w:gz") as archive:
        for name, content in (("train", batch), ("test", rest), ("meta", rest)):
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_archives_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "trace"), "w"))

    pack(tmp_path, pickle.dumps(Evil(), 2))
    with pytest.raises(ValueError, match="open is not allowed in a pickled image batch"):
        numeric.read_cifar100(tmp_path)
    assert not (tmp_path / "trace").exists()


ROWS = np.zeros((3, 3072), np.uint8)
WRONG_BATCHES = {
    "no images": (ROWS[:0], [], "train labels are not in 0 to 1; fetch"),
    "label 7": (ROWS, [0, 1, 7], "train labels are not in 0 to 1; fetch"),
    "negative": (ROWS, [0, 1, -1], "train labels are not in 0 to 1; fetch"),
    "huge": (ROWS, [0, 1, 2**70], "train: Python int too large|too large to convert"),
    "flags": (ROWS, [0, 1, True], "train: fine_labels is no list of whole numbers"),
    "nested": (ROWS, [[0], [1], [1]], "train: fine_labels is no list of whole numbers"),
    "an array": (ROWS, np.zeros(3, int), "train: fine_labels is no list of whole numbers"),
    "too few": (ROWS, [0, 1], r"train: data has shape \[3, 3072\], not \[2, 3072\]"),
    "lists": (ROWS.tolist(), [0, 1, 1], "train: data is no array of bytes"),
    "wide": (ROWS.astype(np.int64), [0, 1, 1], "train: data is no array of bytes"),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_wrong_batches_are_named(tmp_path, case):
    data, labels, message = WRONG_BATCHES[case]
    pack(tmp_path, pickle.dumps({"data": data, "fine_labels": labels}, 4))
    with pytest.raises(ValueError, match=f"cifar-100-python.tar.gz: .*({message})") as caught:
        numeric.read_cifar100(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "two classes have the same name"),
        (["a", ""], "'' is no class name"),
        (["a", "b\nc"], r"'b\\nc' is no class name"),
        (["a", ["b"]], r"\['b'\] is no class name"),
        (3, "'int' object is not iterable"),
        ("airplane", "two classes have the same name"),
    ],
)
def test_class_names_must_be_names(tmp_path, names, message):
    pack(tmp_path, pickle.dumps({"data": ROWS, "fine_labels": [0, 1, 1]}, 4), names)
    with pytest.raises(ValueError, match=f"cifar-100-python.tar.gz: damaged.*{message}") as caught:
        numeric.read_cifar100(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("train-images-idx3", lambda b: b[:-1], "bytes where 31360 are announced"),
        ("train-images-idx3", lambda b: b"\x00\x00\x09" + b[3:], "not an IDX file"),
        ("t10k-labels-idx1", lambda b: b[:5], "damaged"),
        ("t10k-labels-idx1", lambda b: b[:4] + b"\x00\x00\x00\x03" + b[8:11], r"do not fit \[3\]"),
        ("train-labels-idx1", lambda b: b[:-1] + b"\x0a", "labels are not in 0 to 9"),
        ("train-images-idx3", lambda b: b + b"x", "31361 or more bytes where 31360"),
        ("train-images-idx3", lambda b: b[:8] + b"\xff" * 8 + b[16:], "bytes are announced"),
        ("train-images-idx3", lambda b: b[:3] + b"\xff" + b[4:], "damaged"),
        ("train-images-idx3", lambda b: b[:3] + b"\x01" + b[4:8] + b[16:56], "do not fit"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, official, file, spoil, message):
    official.fashion_mnist(tmp_path)
    path = tmp_path / f"{file}-ubyte.gz"
    path.write_bytes(gzip.compress(spoil(gzip.decompress(path.read_bytes()))))
    with pytest.raises(ValueError, match=message) as caught:
        numeric.read_fashion_mnist(tmp_path)
    assert file.split("-")[0] in str(caught.value)


def test_files_that_are_no_archives_are_named(tmp_path, official):
    official.fashion_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz: damaged"):
        numeric.read_fashion_mnist(tmp_path)
