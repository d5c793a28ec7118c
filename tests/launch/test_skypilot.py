"""The SkyPilot task: what it starts exists, and what it restarts continues."""

import re
import shlex
import subprocess

import pytest
import yaml

from flcl import stopping
from flcl.settings import bridge


@pytest.fixture
def task(root) -> dict:
    return yaml.safe_load((root / "launch" / "skypilot.yaml").read_text())


def test_it_has_what_a_task_needs(task):
    assert {"resources", "setup", "run", "workdir"} <= set(task)
    assert task["workdir"] == "."  # the checkout, from which it is launched
    assert re.fullmatch(r"\w+:\d+", task["resources"]["accelerators"])


def test_its_commands_exist(task, root):
    for script in (task["setup"], task["run"]):
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        named = re.findall(r"(?<!\S)(?:--config=)?((?:launch|configs)/\S+)", script)
        assert named and all((root / name).is_file() for name in named)
    assert "install.sh cuda" in task["setup"]
    python, program, *_ = shlex.split(task["run"])[1:]
    assert (python, program) == (".venv/bin/python", "launch/train.py")
    assert 'VENV="${FLCL_VENV:-$ROOT/.venv}"' in (root / "launch" / "_environment.sh").read_text()


def test_every_word_of_the_run_is_a_flag_or_a_key(task):
    words = shlex.split(task["run"])[3:]
    keys = dict(bridge.keys(bridge.run_class("funlora")))
    for name in (word.partition("=")[0].removeprefix("--") for word in words):
        assert name in ("config", "workdir") or name.removeprefix("config.") in keys, name


def test_a_restart_continues_on_the_volume(task):
    """The code that says `saved` is one to recover from, and what was saved is still there."""
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [stopping.STOPPED]
    (mount,) = task["volumes"]
    folders = dict(word.split("=") for word in shlex.split(task["run"])[4:])
    assert folders["--workdir"].startswith(f"{mount}/")
    assert all(folder.startswith(f"{mount}/") for folder in folders.values())
