"""Paths that a user writes."""

from pathlib import Path

import pytest

from flcl.storage import paths


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.local("~/runs/x", "workdir") == tmp_path / "runs" / "x"
    assert paths.local(Path("~"), "workdir") == tmp_path
    assert paths.local("runs/a~b", "workdir") == Path("runs/a~b")


@pytest.mark.parametrize("text", ["C:/runs", "a:b", "runs/é", "x y"])
def test_a_name_with_a_colon_is_no_address(text):
    assert paths.local(text, "workdir") == Path(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gs://bucket/run", "an address, and a path on this machine is needed"),
        (Path("s3://bucket/run"), "an address"),
        ("file:///tmp/x", "an address"),
        ("", "a path is needed, such as runs/NAME"),
        ("a\0b", "a path is needed"),
        (None, "a path is needed"),
        (3, "a path is needed"),
        (b"x", "a path is needed"),
        ("~nobody-of-this-name/x", "there is no such home folder"),
        ("\udcff", "not UTF-8"),
        ("runs/" + 128 * "é", "has a name of 256 bytes; a file system stores up to 255"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(ValueError, match=f"^workdir=.*: {why}"):
        paths.local(text, "workdir")
