"""Files of arrays from anybody: what is right is read as it was, all else is refused by name."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from flcl.storage import tensors

ARRAYS = {"x/a": np.arange(3, dtype=np.float32), "x/b": np.ones((2, 2), np.float32)}
MOST = 1 << 20


def write(path, content):
    path.write_bytes(content)
    return path


def raw(header, data=b"", size=None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ABOUT = {"__metadata__": {"flcl": "{}"}}


def test_what_was_written_is_read(tmp_path):
    about = {"name": "caf\u00e9", "sizes": [1, 2]}
    content = tensors.to_bytes(ARRAYS, about)
    assert content == tensors.to_bytes(dict(reversed(ARRAYS.items())), about)
    found = tensors.read(write(tmp_path / "x", content), MOST)
    assert found.about == about and found.tensors.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found.tensors[name], value)
    # Also with the library alone.
    assert safetensors.numpy.load(content).keys() == ARRAYS.keys()


def test_the_digest_depends_on_names_shapes_types_and_bytes_and_on_no_order():
    digest = tensors.digest(ARRAYS)
    assert digest == tensors.digest(dict(reversed(ARRAYS.items())))
    a, b = ARRAYS.values()
    bits = np.frombuffer(np.float32(1).tobytes(), np.int32)
    others = [
        {"x/c": a, "x/b": b},
        {"x/a": a, "x/b": b.reshape(4)},
        {"x/a": a, "x/b": np.full((2, 2), bits[0])},
        {"x/a": a, "x/b": np.nextafter(b, 2)},
        {"x/a": a},
        {"x/a": np.concatenate([a, b.ravel()])},
    ]
    assert len({digest, *map(tensors.digest, others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.float32([1, np.nan]), "'x' holds NaN or infinity"),
        (np.float32([np.inf]), "'x' holds NaN or infinity"),
        (np.zeros(0, np.float32), "'x' has no entries"),
    ],
)
def test_an_array_without_values_is_refused_on_both_sides(value, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        tensors.to_bytes({"x": value}, {})
    content = safetensors.numpy.save({"x": value}, metadata={"flcl": "{}"})
    with pytest.raises(ValueError, match=why):
        tensors.read(write(tmp_path / "f", content), MOST)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, np.bool_])
def test_another_type_is_refused(dtype, tmp_path):
    content = safetensors.numpy.save({"x": np.ones(2, dtype)}, metadata={"flcl": "{}"})
    with pytest.raises(ValueError, match=r"'x' is \w+; arrays of F32 are needed"):
        tensors.read(write(tmp_path / "f", content), MOST)


BAD = {
    "empty": b"",
    "short": b"\x01\x00",
    "a pickle": pickle.dumps({"x": [1.0]}),
    "a zip": b"PK\x03\x04" + bytes(100),
    "a long header": raw(ABOUT, size=2**63),
    "a header beyond the file": raw(ABOUT, size=1000),
    "no JSON": raw(b"{'x': 1}"),
    "a list": raw(b"[1, 2]"),
    "deep": raw(b"[" * 100_000),
    "one name twice": raw(b'{"x": 1, "x": 2}'),
    "an entry that is no table": raw({**ABOUT, "x": 3}, bytes(4)),
    "an entry without a type": raw({**ABOUT, "x": {"shape": [1]}}, bytes(4)),
    "metadata that is no table": raw({"__metadata__": [1]}),
    "offsets beyond the end": raw({**ABOUT, "x": entry(offsets=(0, 400))}, bytes(4)),
    "offsets that do not fit": raw({**ABOUT, "x": entry(shape=(9,))}, bytes(4)),
    "overlapping arrays": raw({**ABOUT, "x": entry(), "y": entry()}, bytes(4)),
    "bytes of nobody": raw({**ABOUT, "x": entry()}, bytes(400)),
    "a shape that overflows": raw({**ABOUT, "x": entry(shape=(2**62, 2**62))}, bytes(4)),
    "a negative shape": raw({**ABOUT, "x": entry(shape=(-1,))}, bytes(4)),
    "a long name": raw({**ABOUT, "x" * 5000: entry()}, bytes(4)),
    "a description that is no JSON": raw({"__metadata__": {"flcl": "{"}, "x": entry()}, bytes(4)),
}


@pytest.mark.parametrize("kind", BAD)
def test_damage_is_one_line_with_the_name_of_the_file(kind, tmp_path):
    with pytest.raises(ValueError, match="is damaged or no safetensors file") as caught:
        tensors.read(write(tmp_path / "bad.file", BAD[kind]), MOST)
    text = str(caught.value)
    assert "bad.file" in text and "\n" not in text and len(text) < 1000


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({}, "its metadata has no entry 'flcl', so flcl did not write it"),
        ({"flcl": "[1]"}, "its metadata 'flcl' is no table"),
        ({"flcl": '{"a": 1, "a": 2}'}, "has one name twice"),
    ],
)
def test_a_file_of_something_else(metadata, why, tmp_path):
    content = safetensors.numpy.save({"x": np.ones(1, np.float32)}, metadata=metadata)
    with pytest.raises(ValueError, match=why):
        tensors.read(write(tmp_path / "f", content), MOST)


def test_every_cut_of_a_file_is_refused(tmp_path):
    content = tensors.to_bytes(ARRAYS, {})
    for length in range(len(content)):
        with pytest.raises(ValueError, match="damaged"):
            tensors.read(write(tmp_path / "f", content[:length]), MOST)


def test_a_file_that_is_too_large_or_no_file_is_not_opened(tmp_path):
    path = write(tmp_path / "f", bytes(2000))
    with pytest.raises(ValueError, match="has 2,000 bytes, and such a file has at most 1,000"):
        tensors.read(path, 1000)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="a regular file is needed"):
            tensors.read(path, MOST)
    with pytest.raises(FileNotFoundError, match="none"):
        tensors.read(tmp_path / "none", MOST)


def test_arrays_that_do_not_fit_are_named_together():
    shapes = {"x/a": (4,), "x/b": (2, 2), "y": (1,)}
    given = {**ARRAYS, "bad\x1b[2J\u202e": np.ones(1)}
    with pytest.raises(ValueError) as caught:
        tensors.check("FILE", given, shapes)
    assert str(caught.value) == (
        "FILE: its arrays do not fit: 1 missing ('y'); 1 unknown ('bad\\x1b[2J\\u202e'); "
        "1 of another shape ('x/a' is [3], needed [4])"
    )
    with pytest.raises(ValueError, match=r"9 missing \('0', '1', '2' and 6 more\)"):
        tensors.check("FILE", {}, {str(i): (1,) for i in range(9)})
    tensors.check("FILE", ARRAYS, {name: value.shape for name, value in ARRAYS.items()})
