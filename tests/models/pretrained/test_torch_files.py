"""Files of PyTorch against what PyTorch itself stored in them; forged ones run nothing.

`plain.pth` and `plain_older.pth` are the same tensors in both forms, from PyTorch 2.14.
"""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flcl.models.pretrained.torch_files import read_tensors

HERE = Path(__file__).parent
MAGIC = 0x1950A86A20F9469CFC6C


@pytest.mark.parametrize("name", ["plain.pth", "plain_older.pth"])
def test_tensors_of_both_forms(name):
    tensors, content = read_tensors(HERE / name)
    assert content == (HERE / name).read_bytes()
    np.testing.assert_array_equal(
        tensors["0.weight"], np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
    )
    np.testing.assert_array_equal(tensors["0.bias"], np.float32([-1, 0.5]))
    np.testing.assert_array_equal(tensors["1.running_var"], np.ones(2, np.float32))
    assert tensors["1.num_batches_tracked"].shape == ()
    assert tensors["1.num_batches_tracked"].dtype == np.int64
    # A transposed view: its storage has the other order.
    np.testing.assert_array_equal(tensors["turned"], np.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["half"], np.float16([1.5, -2]))
    assert tensors["turned"].flags.c_contiguous and len(tensors) == 9


def test_safetensors_are_read_too(tmp_path):
    arrays = {"a": np.arange(3, dtype=np.float32)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays))
    np.testing.assert_array_equal(read_tensors(path)[0]["a"], arrays["a"])


class Forged:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def older(value) -> bytes:
    parts = (MAGIC, 1001, {"little_endian": True}, value, [])
    return b"".join(pickle.dumps(part, 2) for part in parts)


def zipped(pickled: bytes, **entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def tensor(size: tuple, stride: tuple, offset: int = 0) -> bytes:
    """The pickle of {"w": tensor} with a storage of four numbers."""
    numbers = (offset, size, stride)
    rest = b"".join(pickle.dumps(each, 2)[2:-1] for each in numbers)
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    storage += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"\x89ccollections\n"
    return b"\x80\x02}X\x01\x00\x00\x00w" + call + b"OrderedDict\n)RtRs."


FOUR = {"data/0": np.arange(4, dtype="<f4").tobytes()}


def test_the_forged_tensor_is_read_if_it_fits_its_storage(tmp_path):
    path = tmp_path / "fits.pth"
    path.write_bytes(zipped(tensor((2,), (2,), 1), **FOUR))
    np.testing.assert_array_equal(read_tensors(path)[0]["w"], np.float32([1, 3]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (older({"w": Forged()}), "posix.mkdir is not allowed in a file of tensors"),
        (zipped(pickle.dumps(Forged(), 2)), "posix.mkdir is not allowed in a file of tensors"),
        (older({"w": 3}), "something else than a dictionary of tensors"),
        (zipped(tensor((5,), (1,)), **FOUR), "a tensor that is larger than its storage"),
        (zipped(tensor((2,), (1,), 3), **FOUR), "a tensor that is larger than its storage"),
        (zipped(tensor((10**9,), (0,)), **FOUR), "a tensor that is larger than its storage"),
        (zipped(tensor((-1,), (1,)), **FOUR), "a tensor with an impossible shape"),
        (zipped(tensor((2,), (1,)), **{"data/0": b"12"}), "2 bytes for a storage of 4 elements"),
        (zipped(tensor((2,), (1,)), byteorder=b"big", **FOUR), "numbers of another byte order"),
        ((HERE / "plain.pth").read_bytes()[:900], "is damaged, or no file of plain tensors"),
        ((HERE / "plain_older.pth").read_bytes()[:-9], "is damaged, or no file of plain tensors"),
        (b"<!doctype html>", "is damaged, or no file of plain tensors"),
        (b"", "is damaged, or no file of plain tensors"),
    ],
)
def test_what_is_no_file_of_plain_tensors_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "forged.pth"
    path.write_bytes(content)
    before = set(Path().iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert set(Path().iterdir()) == before
