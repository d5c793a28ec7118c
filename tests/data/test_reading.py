"""Damage is one line; an error that may pass is raised as it is."""

import errno
import os
import re
import socket
from pathlib import Path

import pytest

from flcl import files
from flcl.data import reading

BAD_DISK = Path("/proc/self/mem")  # a regular file on Linux; every read of its start fails
WORDS = ("x", "damaged", "fetch it again")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("label"), "there is no 'label'"),
        (EOFError(), "EOFError"),
        (ValueError("two\n lines"), "two lines"),
        (ValueError("\x1b[2J \x07 {} %s"), r"\x1b[2J \x07 {} %s"),
        (OSError("not a gzip file"), "not a gzip file"),
        (ValueError("a" * 400), "a" * 300 + " ..."),
    ],
)
def test_a_reason_is_one_line_that_can_be_printed(error, reason):
    wanted = f"x: damaged ({reason}); fetch it again"
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}$"), reading.checked(*WORDS):
        raise error


def test_too_large_is_not_damaged():
    with (
        pytest.raises(ValueError, match=r"^x: too large for the memory of this machine \(9 TiB\)$"),
        reading.checked(*WORDS),
    ):
        raise MemoryError("9 TiB")


def test_a_stop_is_not_damage(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(KeyboardInterrupt), reading.opened(tmp_path / "a", *WORDS) as file:
        assert file.read() == b"abc"
        raise KeyboardInterrupt


@pytest.mark.skipif(not BAD_DISK.is_file(), reason="needs Linux")
def test_what_a_library_makes_of_a_disk_error_is_not_believed():
    for read in (lambda file: file.read(), lambda file: file.read(4)):
        with pytest.raises(OSError) as caught, reading.opened(BAD_DISK, *WORDS) as file:
            try:
                read(file)
            except OSError:
                raise EOFError("file ends early") from None
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(BAD_DISK))


def test_missing_files_are_named_by_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        files.regular(tmp_path / "nowhere")


def test_only_regular_files(tmp_path):
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("file", "link"):
        assert files.regular(tmp_path / name) == tmp_path / name
    kinds = {"folder": "a folder", "pipe": "a named pipe", "socket": "a socket"}
    for path, kind in {
        **{tmp_path / k: v for k, v in kinds.items()},
        "/dev/null": "a device",
    }.items():
        with pytest.raises(ValueError, match=f"^{path}: is {kind}; a regular file is needed$"):
            files.regular(path)
        with pytest.raises(ValueError, match=f"is {kind}"):
            files.read_json(path)
    with pytest.raises(ValueError, match=r"^'a\\x00b': no file can have this name"):
        files.regular(Path("a\0b"))
