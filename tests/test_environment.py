"""The shell scripts: what they do to a machine, and what they say when they cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Stands in for Python: answers about itself are real, environments and pip are imitated.
FAKE = """#!/usr/bin/env bash
case "$*" in
  *"import ensurepip"*) exit "${FAKE_NO_VENV:-0}" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*)
    echo "pip ${*: -1}${PYTHONDONTWRITEBYTECODE:+ without bytecode}" >>"$FAKE_LOG"
    if [[ -n "${FAKE_PIP_SAYS:-}" ]]; then echo "$FAKE_PIP_SAYS"; exit 1; fi
    ;;
  *version_info*) exit "${FAKE_OLD:-0}" ;;
  *python_version*) echo "${FAKE_VERSION:-3.12.1}" ;;
  "- "*) exec REAL "$@" ;;
  *) echo "$*" >>"$FAKE_LOG" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path, root) -> Path:
    """A checkout with nothing but the scripts, in a folder with a space in its name."""
    folder = tmp_path / "my checkout"
    shutil.copytree(root / "launch", folder / "launch")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, folder)
    return folder


@pytest.fixture
def fake(tmp_path) -> Path:
    """A stand-in for Python."""
    path = tmp_path / "fake-python"
    path.write_text(FAKE.replace("REAL", sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def run(checkout, tmp_path):
    """Runs a script from another folder; returns the process and what Python was told to do."""

    def call(script: str, *words: str, python: Path | str | None = None, **env):
        log = tmp_path / "log"
        log.write_text("")
        environment = {k: v for k, v in os.environ.items() if k != "FLCL_PYTHON"}
        environment |= {"FAKE_LOG": str(log), "PYENV_ROOT": str(tmp_path / "pyenv"), **env}
        if python is not None:
            environment["FLCL_PYTHON"] = str(python)
        command = [shutil.which("bash"), checkout / "launch" / script, *words]
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
        return done, log.read_text().splitlines()

    return call


def test_quickstart_installs_trains_and_says_what_is_next(run, fake, checkout):
    done, log = run("quickstart.sh", python=fake)
    assert done.returncode == 0, done.stderr
    assert log == [
        "pip .",
        "launch/train.py --config=configs/funlora_digits.py --workdir=runs/quickstart/funlora",
        "launch/train.py --config=configs/fmlora_digits.py --workdir=runs/quickstart/fmlora",
    ]
    assert f"{checkout}/runs/quickstart/funlora/samples/" in done.stdout
    assert done.stdout.count(".venv/bin/python launch/") in (5, 6)


def test_the_second_call_installs_nothing(run, fake):
    run("quickstart.sh", python=fake)
    for python in (fake, None):
        done, log = run("quickstart.sh", python=python)
        assert done.returncode == 0
        assert [line for line in log if line.startswith("pip")] == []
        assert "installing" not in done.stdout


def test_packages_are_installed_with_their_bytecode(run, fake):
    _, log = run("quickstart.sh", python=fake, PYTHONDONTWRITEBYTECODE="1")
    assert log[0] == "pip ."


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(name, run, fake, checkout):
    run("quickstart.sh", python=fake)
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    _, log = run("quickstart.sh")
    assert log[0] == "pip ."


def test_tests_add_their_extra_once_and_pass_arguments_on(run, fake):
    run("quickstart.sh", python=fake)
    done, log = run("test.sh", "-k", "one or two")
    assert done.returncode == 0, done.stderr
    spread = "--numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder"
    assert log == ["pip .[test,aot]", f"-m pytest {spread} -k one or two"]
    _, log = run("test.sh")
    assert log == [f"-m pytest {spread}"]
    _, log = run("quickstart.sh")
    assert log[0].startswith("launch/train.py"), "the extra brings all that the quickstart needs"


def test_install_adds_an_extra_and_runs_nothing(run, fake, checkout):
    done, log = run("install.sh", "tpu", python=fake)
    assert done.returncode == 0, done.stderr
    assert log == ["pip .[tpu]"]
    assert done.stdout.splitlines()[-1].endswith(f"{checkout}/.venv/bin/python")
    done, log = run("install.sh", "gpu", python=fake)
    assert (done.returncode, log) == (2, [])
    assert "one of cuda, tpu and test, or nothing for CPUs, not 'gpu'" in done.stderr


def test_another_python_rebuilds_its_own_environment_only(run, fake, checkout, tmp_path):
    run("quickstart.sh", python=fake)
    newer = tmp_path / "newer-python"
    newer.write_text(fake.read_text().replace("3.12.1", "3.13.0"))
    newer.chmod(0o755)
    done, log = run("quickstart.sh", python=newer)
    assert done.returncode == 0, done.stderr
    assert "creating .venv with Python 3.13.0" in done.stdout
    assert log[0] == "pip ."
    (checkout / ".venv" / ".flcl").unlink()
    done, log = run("quickstart.sh", python=fake)
    assert done.returncode == 2
    assert "was made by hand" in done.stderr
    assert (checkout / ".venv" / "bin" / "python").exists()
    assert log == []


@pytest.mark.parametrize(
    ("python", "env", "lines"),
    [
        ("nowhere", {}, ["FLCL_PYTHON=nowhere: there is no such program", "Python 3.11 or newer"]),
        (
            "fake",
            {"FAKE_OLD": "1", "FAKE_VERSION": "3.9.18"},
            ["is Python 3.9.18; flcl needs 3.11 or newer"],
        ),
        ("fake", {"FAKE_NO_VENV": "1"}, ["its venv module is missing", "apt install python3-venv"]),
        (
            "fake",
            {"FAKE_PIP_SAYS": "WARNING: Retrying after NewConnectionError: refused"},
            ["pip could not reach its package index", "network and proxy", "PIP_NO_INDEX=1"],
        ),
        (
            "fake",
            {"FAKE_PIP_SAYS": "ERROR: No matching distribution found for jax"},
            ["pip could not install the packages: ERROR: No matching distribution", "install.log"],
        ),
    ],
)
def test_it_says_why_and_what_to_do(python, env, lines, run, fake):
    done, log = run("quickstart.sh", python=fake if python == "fake" else python, **env)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0].startswith("error: ")
    assert len(said) <= 3
    for expected in lines:
        assert any(expected in line for line in said), done.stderr
    assert not [line for line in log if "train.py" in line], "nothing runs after an error"


@pytest.mark.parametrize("found", ["missing", "3.8.2"])
def test_without_a_new_python_on_the_path(found, run, fake, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat", "grep", "tail", "mkdir", "rm", "cp"):
        (tools / name).symlink_to(shutil.which(name))
    env = {"PATH": str(tools)}
    if found != "missing":
        shutil.copy(fake, tools / "python3")
        env |= {"FAKE_OLD": "1", "FAKE_VERSION": found}
    done, _ = run("quickstart.sh", **env)
    assert done.returncode == 2
    assert f"flcl needs Python 3.11 or newer; python3 here is {found}" in done.stderr
    assert "FLCL_PYTHON=/path/to/python3.12 bash launch/quickstart.sh" in done.stderr


def test_the_newest_python_that_runs_is_taken(run, fake, tmp_path):
    """A shim may be on the PATH and do nothing; a manager may keep its Pythons elsewhere."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat", "grep", "tail", "mkdir", "rm", "cp"):
        (tools / name).symlink_to(shutil.which(name))

    def install(path: Path, version: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fake.read_text().replace("3.12.1", version))
        path.chmod(0o755)

    install(tools / "python3", "3.11.7")
    (tools / "python3.14").write_text("#!/usr/bin/env bash\nexit 127\n")
    (tools / "python3.14").chmod(0o755)
    install(tools / "python3.12", "3.12.9")
    env = {"PATH": str(tools), "PYENV_ROOT": str(tmp_path / "managed"), "FLCL_VENV": ""}
    done, _ = run("quickstart.sh", **env)
    assert done.returncode == 0 and "creating .venv with Python 3.12.9" in done.stdout, done.stderr
    install(tmp_path / "managed" / "versions" / "3.13.10" / "bin" / "python3", "3.13.10")
    other = str(tmp_path / "other")
    done, _ = run("quickstart.sh", **env | {"FLCL_VENV": other})
    assert f"creating {other} with Python 3.13.10" in done.stdout, done.stderr
    assert (tmp_path / "other" / "bin" / "python").exists()


def test_an_interrupted_installation_goes_on(run, fake):
    done, _ = run("quickstart.sh", python=fake, FAKE_PIP_SAYS="ERROR: stopped")
    assert done.returncode == 2
    done, log = run("quickstart.sh", python=fake)
    assert done.returncode == 0
    assert log[0] == "pip ."
