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


def pack(tmp_path, batch: bytes) -> None:
    """A CIFAR-100 archive whose training batch is `batch`."""
    with tarfile.open(tmp_path / numeric.CIFAR100_FILES[0], "w:gz") as archive:
        rest = pickle.dumps({"fine_label_names": [], "data": [], "fine_labels": []}, 2)
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


@pytest.mark.parametrize("labels", [[], [0, 1, 7]])
def test_labels_must_fit(tmp_path, labels):
    pack(tmp_path, pickle.dumps({"data": [[0] * 3072] * len(labels), "fine_labels": labels}, 2))
    with pytest.raises(ValueError, match="train labels are not in 0 to|damaged"):
        numeric.read_cifar100(tmp_path)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("train-images-idx3", lambda b: b[:-1], "bytes where 31360 are announced"),
        ("train-images-idx3", lambda b: b"\x00\x00\x09" + b[3:], "not an IDX file"),
        ("t10k-labels-idx1", lambda b: b[:5], "damaged"),
        ("t10k-labels-idx1", lambda b: b[:4] + b"\x00\x00\x00\x03" + b[8:11], r"do not fit \[3\]"),
        ("train-labels-idx1", lambda b: b[:-1] + b"\x0a", "labels are not in 0 to 9"),
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
