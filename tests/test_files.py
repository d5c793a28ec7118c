"""Files are written whole or not at all."""

import errno
import json
import os
import struct
import zlib
from pathlib import Path

import pytest

from flcl import files
from flcl.stopping import StoppedError


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


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError, match="a folder is in the place of .*/a.json'$"):
        files.write_json(tmp_path / "a.json", 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


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


def test_what_is_special_is_named_without_being_opened(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    kinds = {"file": "", "link": "", "pipe": "a named pipe", ".": "a folder"}
    assert {name: files.special((tmp_path / name).stat()) for name in kinds} == kinds
    assert files.special(os.stat("/dev/zero")) == "a device"
    with pytest.raises(ValueError, match="pipe: is a named pipe; a regular file is needed"):
        files.regular(tmp_path / "pipe")


def test_a_reason_is_one_line_and_never_empty():
    assert files.reason(ValueError("two\n  lines")) == "two lines"
    assert files.reason(KeyError()) == "KeyError"


def test_two_writers_of_a_shared_file_do_not_mix(tmp_path):
    path = tmp_path / "labels"

    def first(file):
        file.write(b"first")
        files.write(path, b"second", shared=True)
        file.write(b" and last")

    assert files.write(path, first, shared=True).read_bytes() == b"first and last"
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels"]


def wrapped(error: Exception, kind: type[Exception] = ValueError) -> Exception:
    """`error` as a library raises it again."""
    try:
        try:
            raise error
        except Exception as cause:
            raise kind("cannot be read") from cause
    except Exception as outer:
        return outer


STORE = 'Error reading "kernel/0.0": Failed to open: "/x/y"'


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (OSError(errno.ESTALE, "Stale file handle"), errno.ESTALE),
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EMFILE, "Too many open files"), errno.EMFILE),
        (MemoryError(), errno.ENOMEM),
        (TimeoutError("after 3 seconds"), errno.ETIMEDOUT),
        (PermissionError("not yours"), errno.EACCES),
        (wrapped(OSError(errno.EIO, "Input/output error")), errno.EIO),
        (wrapped(wrapped(MemoryError()), RuntimeError), errno.ENOMEM),
        (ExceptionGroup("two", [ValueError("x"), OSError(errno.EIO, "x")]), errno.EIO),
        # As TensorStore and safetensors say it.
        (ValueError(f"UNKNOWN: {STORE}: Input/output error [os_error_code='5']"), errno.EIO),
        (ValueError(f"ABORTED: {STORE}: Stale file handle [os_error_code='116']"), errno.ESTALE),
        (ValueError("RESOURCE_EXHAUSTED: x [os_error_code='28']"), errno.ENOSPC),
        (ValueError("UNAVAILABLE: the server is restarting"), errno.EAGAIN),
        (Exception("Error opening: Too many open files (os error 24)"), errno.EMFILE),
        # Only a file that is not there, or that was read and is wrong, is damaged.
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (FileNotFoundError("Metadata file does not exist"), None),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), None),
        (OSError(errno.EINVAL, "Invalid argument"), None),  # a seek to a negative place
        (OSError("image file is truncated"), None),
        (EOFError(), None),
        (zlib.error("invalid block type"), None),
        (wrapped(struct.error("unpack requires 4 bytes")), None),
        (ValueError(f"NOT_FOUND: {STORE} [os_error_code='2']"), None),
        (ValueError("DATA_LOSS: Error decoding manifest: CRC-32C checksum failed"), None),
        (ValueError("OUT_OF_RANGE: Requested byte range [0, 282) is not valid"), None),
    ],
)
def test_only_a_file_that_was_read_and_is_wrong_is_damaged(error, number):
    with pytest.raises((OSError, KeyError)) as raised, files.reading("a/b.npz", KeyError):
        raise error
    if number is None:
        assert raised.type is KeyError  # what the reader calls damage
        assert raised.value.__cause__ is error
    else:
        assert raised.value.errno == number
        assert str(raised.value).endswith(f"{os.strerror(number)}: 'a/b.npz'")


def test_a_stop_is_no_damage():
    for stop in (KeyboardInterrupt, StoppedError):
        with pytest.raises(stop), files.reading("a/b.npz", KeyError):
            raise stop


def test_an_error_while_reading_names_the_file(tmp_path, monkeypatch):
    """The system names the file only when it cannot be opened."""
    path = tmp_path / "a.json"
    path.write_text("{}")

    def fail(self):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    for read in (files.read_bytes, files.read_json):
        with pytest.raises(OSError, match=r"Input/output error: '.*a\.json'") as raised:
            read(path)
        assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe{", b"[" * 100_000, b""])
def test_json_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not readable as JSON"):
        files.read_json(path)
