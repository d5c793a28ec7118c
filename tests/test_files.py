"""Files are written whole or not at all."""

import json

import pytest

from flcl import files


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = files.write(tmp_path / "new" / "a.txt", "old ä")
    assert path.read_bytes() == "old ä".encode()

    def half(file):
        file.write(b"new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write(path, half)
    assert path.read_text() == "old ä"
    files.write(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_json_is_sorted_and_has_no_nan(tmp_path):
    path = files.write_json(tmp_path / "a.json", {"b": 1, "a": [None, 0.5]})
    assert path.read_text() == '{\n  "a": [\n    null,\n    0.5\n  ],\n  "b": 1\n}\n'
    assert files.read_json(path) == json.loads(path.read_text())
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    assert files.read_json(path)["b"] == 1


def test_what_cannot_be_read_is_named(tmp_path):
    assert files.read_json(tmp_path / "missing.json") is None
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"torn\.json is not readable as JSON"):
        files.read_json(tmp_path / "torn.json")


def test_two_writers_of_a_shared_file_do_not_mix(tmp_path):
    path = tmp_path / "labels"

    def first(file):
        file.write(b"first")
        files.write(path, b"second", shared=True)
        file.write(b" and last")

    assert files.write(path, first, shared=True).read_bytes() == b"first and last"
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels"]
