"""What every official archive has in common: special files, errors of the disk, huge members."""

import io
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from flcl.data import sources
from flcl.data.archives import builders, members

BAD_DISK = Path("/proc/self/mem")  # a regular file on Linux; every read of its start fails


@pytest.mark.parametrize("name", builders.BUILDERS)
def test_special_files_are_refused_unopened(tmp_path, data, official, name):
    """A named pipe without a writer: to open it would wait for ever."""
    getattr(official, name)(tmp_path)
    for file in builders.BUILDERS[name].FILES:
        (tmp_path / file).rename(tmp_path / "kept")
        os.mkfifo(tmp_path / file)
        wanted = f"{tmp_path / file}: is a named pipe; a regular file is needed"
        with pytest.raises(ValueError, match=re.escape(wanted)):
            sources.load_source(
                data(source=f"tfds:{name}", tfds_dir=f"{tmp_path}/x", manual_dir=str(tmp_path))
            )
        (tmp_path / file).unlink()
        (tmp_path / "kept").rename(tmp_path / file)


@pytest.mark.skipif(not BAD_DISK.is_file(), reason="needs Linux")
@pytest.mark.parametrize("name", builders.BUILDERS)
def test_an_error_of_the_disk_is_no_damage(tmp_path, official, name):
    getattr(official, name)(tmp_path)
    for file in builders.BUILDERS[name].FILES:
        if file.endswith(".zip"):  # read from its end, which this file does not have
            continue
        (tmp_path / file).rename(tmp_path / "kept")
        (tmp_path / file).symlink_to(BAD_DISK)
        with pytest.raises(OSError, match=re.escape(f"error: '{tmp_path / file}'")):
            builders.BUILDERS[name].read(tmp_path)
        (tmp_path / file).unlink()
        (tmp_path / "kept").rename(tmp_path / file)
    builders.BUILDERS[name].read(tmp_path)


def header(size: int) -> bytes:
    member = tarfile.TarInfo("huge")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(("size", "message"), [(-512, "negative size"), (2**40, "bytes are ann")])
def test_forged_sizes_of_a_tar_archive(size, message):
    """With a negative size, `tarfile` of some versions of Python never comes to an end."""
    file = io.BytesIO(header(size) + bytes(1024))
    with tarfile.open(fileobj=file) as archive, pytest.raises(ValueError, match=message):
        for _, member in members.tar_files(archive):
            members.read(archive, member)


def test_huge_members_of_a_zip_archive_are_not_unpacked(monkeypatch):
    monkeypatch.setattr(members, "_LARGEST", 1000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small", bytes(1000))
        archive.writestr("huge", bytes(1001))
        assert members.read(archive, "small") == bytes(1000)
        with pytest.raises(ValueError, match="1001 bytes are announced; official files have less"):
            members.read(archive, "huge")


def test_links_and_folders_of_a_tar_archive_are_no_files():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in (("a", tarfile.SYMTYPE), ("b", tarfile.DIRTYPE), ("c", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("./d"))
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as archive:
        assert [name for name, _ in members.tar_files(archive)] == ["d"]
