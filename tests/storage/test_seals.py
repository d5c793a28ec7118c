"""Digests of files, and arrays in files."""

import io
import json

import numpy as np
import pytest

from flcl.storage import npz
from flcl.storage.seals import NAME, Seals, digest


def test_a_file_of_the_run_is_told_from_another(tmp_path):
    seals = Seals(tmp_path)
    assert seals.holds("a/b.json", digest(b"one")) is None
    path = seals.write("a/b.json", b"one")
    assert path.read_bytes() == b"one" and path == tmp_path / "a" / "b.json"
    again = Seals(tmp_path, writes=False)
    assert again.holds("a/b.json", digest(b"one")) is True
    assert again.holds("a/b.json", digest(b"two")) is False
    assert again.holds("a/c.json", digest(b"one")) is None


def test_the_content_before_stays_good_because_a_kill_may_leave_it(tmp_path):
    seals = Seals(tmp_path)
    for content in (b"one", b"two", b"two", b"three"):
        seals.write("a", content)
    accepted = [seals.holds("a", digest(content)) for content in (b"one", b"two", b"three")]
    assert accepted == [False, True, True]


def test_other_processes_write_nothing(tmp_path):
    seals = Seals(tmp_path, writes=False)
    assert seals.write("a", b"one") == tmp_path / "a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"a": "b"}', '{"a": [1]}', "[" * 100_000, "\0"])
def test_without_good_digests_nothing_is_known(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    seals = Seals(tmp_path)
    assert seals.holds("a", digest(b"one")) is None
    seals.write("a", b"one")
    assert seals.holds("a", digest(b"one")) is True
    assert list(json.loads((tmp_path / NAME).read_text())) == ["a"]


KINDS = {"features": npz.Kind("f", 2)}


def test_arrays_come_back():
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    for compressed in (True, False):
        content = npz.to_bytes({"features": features}, compressed=compressed)
        back = npz.from_bytes(content, "x.npz", KINDS)["features"]
        np.testing.assert_array_equal(back, features)
        assert back.dtype == np.float32


def array_alone() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2)))
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, features=np.array([[{}]], object))
    return file.getvalue()


GOOD = npz.to_bytes({"features": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 64,
        GOOD[: len(GOOD) // 2],
        GOOD[:-30] + b"\0" * 30,
        array_alone(),
        pickled(),
        b"PK\x03\x04nonsense",
        npz.to_bytes({"other": np.zeros((2, 2), np.float32)}),
        npz.to_bytes({"features": np.zeros(2, np.float32)}),
        npz.to_bytes({"features": np.zeros((2, 2), np.int32)}),
        npz.to_bytes({"features": np.full((2, 2), "x")}),
    ],
)
def test_damaged_arrays_are_named_in_one_line(content):
    with pytest.raises(ValueError, match="x.npz is damaged") as caught:
        npz.from_bytes(content, "x.npz", KINDS)
    assert "\n" not in str(caught.value)


def test_a_small_file_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(npz, "_BOMB", 100_000)
    content = npz.to_bytes({"features": np.zeros((200, 200), np.float32)})
    with pytest.raises(ValueError, match=r"x.npz is damaged .its [0-9]+ bytes would unpack to 0.0"):
        npz.from_bytes(content, "x.npz", KINDS)
