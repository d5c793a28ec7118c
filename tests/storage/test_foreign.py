"""A workdir from somebody else leads nowhere else."""

import os
import socket
from pathlib import Path

import pytest

from flcl.storage import foreign


@pytest.fixture
def workdir(tmp_path) -> Path:
    (tmp_path / "run" / "checkpoints" / "tasks" / "1").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    return tmp_path / "run"


def linked(name: str, target: str):
    def make(workdir: Path) -> None:
        path = workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


def pipe(workdir: Path) -> None:
    os.mkfifo(workdir / "timing.json")


def listening(workdir: Path) -> None:
    here = os.getcwd()
    os.chdir(workdir)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("timing.json")
    finally:
        os.chdir(here)


def hard_linked(workdir: Path) -> None:
    os.link(workdir.parent / "outside" / "file", workdir / "metrics.jsonl")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (linked("checkpoints/running", "../../outside"), r"checkpoints/running is .* leads out"),
        (linked("checkpoints/running", "tasks"), r"checkpoints/running is a symbolic link"),
        (linked("checkpoints/tasks/1/state", "/etc"), r"tasks/1/state is .* leads out"),
        (linked("plots/matrix.png", "../../outside/file"), r"plots/matrix.png is .* leads out"),
        (linked("samples", "/"), r"samples is .* leads out"),
        (linked("report.html", "/nowhere/at/all"), r"report.html is .* leads out"),
        (linked("metrics.jsonl", "config.json"), r"metrics.jsonl is a symbolic link"),
        (linked(".report.html.tmp", "config.json"), r"\.report.html.tmp is a symbolic link"),
        (linked("loop", "loop/.."), "loop is a symbolic link"),
        (pipe, "timing.json is neither a file nor a folder"),
        (listening, "timing.json is neither a file nor a folder"),
        (hard_linked, r"metrics.jsonl is also a file elsewhere \(a hard link\)"),
    ],
)
def test_what_leads_elsewhere_is_refused_by_name(workdir, make, message):
    make(workdir)
    with pytest.raises(ValueError, match=message) as caught:
        foreign.check_folder(workdir)
    assert "plain copy" in str(caught.value) and "\n" not in str(caught.value)


def test_plain_folders_and_harmless_links_are_accepted(workdir, tmp_path):
    (workdir / "index.html").symlink_to("report.html")  # is not there yet
    (workdir / "settings.json").symlink_to("config.json")
    os.link(workdir / "config.json", workdir / "copy.json")
    foreign.check_folder(workdir)
    (tmp_path / "by_another_name").symlink_to(workdir)
    foreign.check_folder(tmp_path / "by_another_name")
    foreign.check_folder(tmp_path / "missing")


def test_a_folder_that_may_not_be_listed_is_passed_over(workdir, monkeypatch):
    """Such as `lost+found`, where the workdir is a disk of its own."""
    real = os.scandir

    def refuse(path):
        if str(path).endswith("checkpoints"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(foreign.os, "scandir", refuse)
    foreign.check_folder(workdir)
