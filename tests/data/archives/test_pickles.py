"""Pickled batches: what is read, and forged ones, which crash or fill the memory of `pickle`."""

import pickle
import struct

import numpy as np
import pytest

from flcl.data.archives import pickles

VALUES = {"text": "é", "numbers": [0, -1, 255, 2**40], "none": None, "pair": (1, "a"), "flag": True}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol(protocol):
    assert pickles.read_batch(pickle.dumps(VALUES, protocol)) == VALUES


@pytest.mark.parametrize("kind", ["u1", "i2", "<i8", ">i4", "f4", ">f8", "?"])
def test_arrays_of_numbers(kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    for protocol in (3, 4):
        for values in (array, np.asfortranarray(array), array[:0]):
            found = pickles.read_batch(pickle.dumps({"data": values}, protocol))["data"]
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values)


def test_batches_of_python_2(official):
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    content = b"\x80\x02" + official.python2({"data": pixels, "labels": [3, 1]}) + b"."
    found = pickles.read_batch(content)
    np.testing.assert_array_equal(found["data"], pixels)
    assert found["labels"] == [3, 1]


def test_protocol_0_as_written_by_python_2():
    text = (
        b"(dp1\nS'num_cases_per_batch'\np2\nI10000\nsS'label_names'\np3\n(lp4\nS'airplane'\np5\nas."
    )
    assert pickles.read_batch(text) == {"num_cases_per_batch": 10000, "label_names": ["airplane"]}


NEW = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
U1 = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87R"


def dtype(code: str) -> bytes:
    return b"cnumpy\ndtype\nX" + struct.pack("<i", len(code)) + code.encode() + b"K\x00K\x01\x87R"


def array(kind: bytes, content: bytes, shape=b"K\x08\x85") -> bytes:
    """A dictionary with one array of a type `kind`."""
    state = b"(K\x01" + shape + kind + b"\x89B" + struct.pack("<i", len(content)) + content + b"t"
    return b"\x80\x02}X\x04\x00\x00\x00data" + NEW + state + b"bs."


def state(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"tb"


BAR = b"X\x01\x00\x00\x00|"
MINUS = b"J\xff\xff\xff\xff"
PAIRS = state(b"K\x03", BAR, U1 + b"K\x63\x86", b"NN", MINUS, MINUS, b"K\x00")
FIELDS = state(b"K\x03", BAR, b"NX\x01\x00\x00\x00a\x85}K\x08K\x01K\x00")
OBJECTS = state(b"K\x03X\x01\x00\x00\x00ONNN", MINUS, MINUS, b"K\x3f")
FORGED = {
    "objects": array(dtype("O8"), b"\x01" * 8),
    "objects by state": array(U1 + OBJECTS, b"\x01" * 8),
    "long type code": array(dtype("u1,O"), b"\x01" * 9),
    "dates": array(dtype("M8"), b"\x01" * 8),
    "texts": array(dtype("U1"), b"\x01" * 32),
    "void": array(dtype("V8"), b"\x01" * 64),
    "a type of a number": array(b"cnumpy\ndtype\nK\x03K\x00K\x01\x87R", b"\x01" * 8),
    "a type of a type": array(b"cnumpy\ndtype\ncnumpy\ndtype\nK\x00K\x01\x87R", b"\x01" * 8),
    "a type without a code": array(b"cnumpy\ndtype\n)R", b"\x01" * 8),
    "pairs": array(U1 + PAIRS, b"\x01" * 8),
    "fields": array(U1 + FIELDS, b"\x01" * 8),
    "state of a number": array(U1 + b"K\x05b", b"\x01" * 8),
    "short content": array(U1, b"\x01" * 7),
    "long content": array(U1, b"\x01" * 9),
    "negative shape": array(U1, b"\x01" * 8, b"J\xff\xff\xff\xffJ\xf8\xff\xff\xff\x86"),
    "huge shape": array(U1, b"\x01" * 8, b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),
    "shape of a text": array(U1, b"\x01" * 8, b"X\x01\x00\x00\x00a"),
    "type is a list": array(b"]", b"\x01" * 8),
    "state of a name": b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",
    "state of a list": b"\x80\x02]}b.",
    "a call of a class": b"\x80\x02cnumpy\nndarray\nK\x08\x85\x85R.",
    "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "another name": b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.",
    "a name in a name": b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.data\x93.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "an instance": b"(icollections\nOrderedDict\n.",
    "floats": pickle.dumps({"labels": [0.5]}, 2),
    "a set": pickle.dumps({"labels": {1, 2}}, 4),
    "nested key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "number as key": b"\x80\x02}K\x01K\x01s.",
    "odd items": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "far memory": b"\x80\x02}r\xff\xff\xff\x7fh\x00.",
    "no memory": b"\x80\x02h\x07.",
    "empty": b"",
    "no value": b"\x80\x02.",
    "no end": b"\x80\x02}",
    "no mark": b"\x80\x02]u.",
    "a long announcement": b"\x80\x02U\xffabc.",
    "a list": pickle.dumps([1], 2),
    "digits": b"I" + b"9" * 5000 + b"\n.",
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_forged_batches_are_refused(case):
    with pytest.raises((ValueError, KeyError, IndexError, TypeError)):
        pickles.read_batch(FORGED[case])


def test_the_same_batch_without_forgery_is_read():
    found = pickles.read_batch(array(U1, bytes(range(8))))
    np.testing.assert_array_equal(found["data"], np.arange(8, dtype=np.uint8))
    plain = U1 + state(b"K\x03", BAR, b"NNN", MINUS, MINUS, b"K\x00")
    np.testing.assert_array_equal(
        pickles.read_batch(array(plain, bytes(range(8))))["data"], found["data"]
    )


def test_one_text_is_not_the_content_of_many_arrays():
    content = b"B" + struct.pack("<i", 1000) + b"\x01" * 1000 + b"q\x000"
    content = b"\x80\x02](" + content[:-1]
    once = NEW + b"(K\x01M\xe8\x03\x85" + U1 + b"\x89h\x00tb"
    assert pickle.loads(content + once * 2 + b"e.")[2].shape == (1000,)
    with pytest.raises(ValueError, match="arrays that are larger than the file"):
        pickles.read_batch(content + once * 2 + b"e.")


def test_a_small_file_cannot_hold_operations_without_end(monkeypatch):
    monkeypatch.setattr(pickles, "_MOST_OPERATIONS", 1000)
    with pytest.raises(ValueError, match="a pickle of more than 1000 operations"):
        pickles.read_batch(b"\x80\x02" + b"]" * 1000 + b".")
    with pytest.raises(ValueError, match="a pickled list where a dictionary is needed"):
        pickles.read_batch(b"\x80\x02" + b"]" * 997 + b".")
