"""The shell scripts: what they do to a machine, and what they say when they cannot."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Stands in for Python: answers about itself are real, environments and pip are imitated.
FAKE = """#!/usr/bin/env bash
case "$*" in
  *"import ensurepip"*) exit "${FAKE_NO_VENV:-0}" ;;
  *"import pip"*) [[ -e "${0%/*}/pip" ]]; exit ;;
  *sysconfig*) mkdir -p "${0%/*}/../packages"; echo "${0%/*}/../packages" ;;
  "-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    if [[ -n "${FAKE_KILLED_IN_VENV:-}" ]]; then kill -KILL "$PPID"; exit; fi
    : >"$3/bin/pip"
    ;;
  "-m pip "*)
    if [[ -n "${FAKE_KILLED_IN_PIP:-}" ]]; then kill -KILL "$PPID"; exit; fi
    if [[ -n "${FAKE_PIP_WAITS:-}" ]]; then
      : >"$FAKE_PIP_WAITS.started"
      while [[ ! -e "$FAKE_PIP_WAITS" ]]; do sleep 0.05; done
    fi
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
    numbers = itertools.count()

    def call(script: str, *words: str, python: Path | str | None = None, **env):
        log = tmp_path / f"log-{next(numbers)}"
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
    export = "launch/classes.py export --workdir=runs/quickstart/funlora --classes=0,1,2,3,4,5,6,7"
    export += " --out=runs/quickstart/classes/"
    assert log == [
        "pip .",
        "launch/train.py --config=configs/funlora_fashion16.py --workdir=runs/quickstart/funlora",
        f"{export}before --overwrite",
        "launch/learn.py --workdir=runs/quickstart/funlora --data=fashion16:bag,boot",
        f"{export}after --overwrite",
        "launch/train.py --config=configs/fmlora_digits.py --workdir=runs/quickstart/fmlora",
    ]
    assert f"{checkout}/runs/quickstart/funlora/samples/before_after.png" in done.stdout
    assert done.stdout.count(".venv/bin/python launch/") in (5, 6)


def write_classes(folder: Path, **contents: str) -> None:
    """Files of classes, as an export of them writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.safetensors").write_text(content)


def test_the_quickstart_compares_the_classes_before_and_after(run, fake, checkout):
    files = checkout / "runs" / "quickstart" / "classes"
    write_classes(files / "before", Coat="factors", Dress="numbers")
    write_classes(files / "after", Coat="factors", Dress="numbers")
    done, _ = run("quickstart.sh", python=fake)
    assert done.returncode == 0, done.stderr
    assert "a file of about 7 bytes. The 2 other classes did not change by a bit" in done.stdout
    write_classes(files / "after", Coat="factorz")
    done, log = run("quickstart.sh", python=fake)
    assert done.returncode == 2 and "fmlora" not in log[-1]
    assert "before/Coat.safetensors: another class has changed" in done.stderr
    # A run that has learned them is not asked again.
    picture = checkout / "runs" / "quickstart" / "funlora" / "samples" / "before_after.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    done, log = run("quickstart.sh", python=fake)
    assert (done.returncode, len(log)) == (0, 2) and "learn.py" not in "".join(log)


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
        (
            "fake",
            {"FAKE_PIP_SAYS": "OSError: no space left"},
            ["pip could not install the packages: OSError: no space left", "install.log"],
        ),
        (
            "fake",
            {"FAKE_PIP_SAYS": "ERROR: Operation cancelled by user"},
            ["was interrupted", "run the same command again: it makes the folder again"],
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


@pytest.mark.parametrize("where", ["FAKE_KILLED_IN_VENV", "FAKE_KILLED_IN_PIP"])
def test_what_a_killed_installation_leaves_is_made_again(where, run, fake, checkout):
    done, _ = run("quickstart.sh", python=fake, **{where: "1"})
    assert done.returncode != 0
    assert (checkout / ".venv" / "bin" / "python").exists()
    for python in (None, fake):
        done, log = run("install.sh", python=python or fake)
        assert done.returncode == 0, done.stderr
        if python is None:
            assert ".venv is made again: its last installation was interrupted" in done.stdout
            assert log == ["pip ."]
        else:
            assert log == []


def test_an_environment_without_pip_is_made_again_or_refused_with_the_reason(run, fake, checkout):
    run("install.sh", python=fake)
    (checkout / ".venv" / "bin" / "pip").unlink()
    (checkout / ".venv" / ".flcl-stamp").unlink()
    done, log = run("install.sh", python=fake)
    assert done.returncode == 0 and ".venv is made again: it has no pip" in done.stdout
    (checkout / ".venv" / "bin" / "pip").unlink()
    for name in (".flcl-stamp", ".flcl"):
        (checkout / ".venv" / name).unlink()
    done, log = run("install.sh", python=fake)
    assert (done.returncode, log) == (2, [])
    assert "does not fit and was made by hand: it has no pip" in done.stderr
    assert "FLCL_VENV=$HOME/flcl-venv" in done.stderr


def test_a_relative_folder_is_that_of_the_caller(run, fake, tmp_path):
    place = os.path.relpath(tmp_path / "there", "/")  # the scripts are called in /
    done, _ = run("install.sh", python=fake, FLCL_VENV=f"{place}/")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "bin" / "python").exists()


def test_an_empty_folder_is_used(run, fake, checkout):
    (checkout / ".venv").mkdir()
    done, log = run("install.sh", python=fake)
    assert done.returncode == 0 and log == ["pip ."], done.stderr


def test_a_failed_installation_of_an_extra_keeps_the_environment(run, fake, checkout):
    run("install.sh", python=fake)
    (checkout / ".venv" / "mine").touch()
    done, _ = run("install.sh", "tpu", FAKE_PIP_SAYS="ERROR: no network")
    assert done.returncode == 2
    done, log = run("install.sh")
    assert (done.returncode, log) == (0, [])
    assert (checkout / ".venv" / "mine").exists()


@pytest.fixture
def sealed(checkout):
    """Makes a folder read-only, also for root where that is possible; else skips the test."""
    changed = []

    def seal(folder: Path) -> None:
        changed.append(folder)
        folder.chmod(0o555)
        if os.access(folder, os.W_OK):
            pytest.skip("root may write everywhere")

    yield seal
    for folder in changed:
        folder.chmod(0o755)


def test_a_read_only_checkout_that_is_installed_is_used(run, fake, checkout, sealed):
    run("install.sh", python=fake)
    sealed(checkout / ".venv")
    sealed(checkout)
    done, log = run("install.sh", python=fake)
    assert (done.returncode, log) == (0, []), done.stderr


def test_a_read_only_checkout_needs_a_folder_elsewhere(run, fake, checkout, sealed, tmp_path):
    sealed(checkout)
    done, _ = run("install.sh", python=fake)
    assert done.returncode == 2
    assert "is read-only or missing" in done.stderr and "FLCL_VENV=" in done.stderr
    place = tmp_path / "elsewhere"
    done, log = run("install.sh", "test", python=fake, FLCL_VENV=str(place))
    assert done.returncode == 0, done.stderr
    assert log == [f"pip {place}/requirements.txt"]
    assert (place / "packages" / "flcl.pth").read_text() == f"{checkout}\n"
    needed = (place / "requirements.txt").read_text().split()
    assert any(word.startswith("jax>=") for word in needed)
    assert any(word.startswith("pytest>=") for word in needed)


@pytest.mark.skipif(shutil.which("flock") is None, reason="there is no flock here")
def test_two_installations_wait_for_each_other(run, fake, checkout, tmp_path):
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(run, "install.sh", python=fake, FAKE_PIP_WAITS=str(gate))
        while not gate.with_suffix(".started").exists():
            time.sleep(0.02)
        second = pool.submit(run, "install.sh", python=fake)
        time.sleep(0.3)
        assert not second.done()
        gate.touch()
        (one, log), (two, _) = first.result(), second.result()
    assert (one.returncode, two.returncode) == (0, 0), (one.stderr, two.stderr)
    assert "waiting for another installation into .venv" in two.stdout
    assert log == ["pip ."]


SCRIPTS = ("quickstart.sh", "install.sh", "test.sh", "_worker.sh", "_environment.sh", "tpu_pod.sh")


@pytest.mark.parametrize("script", [*SCRIPTS, "slurm.sbatch"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_helps_and_installs_nothing(script, word, run, fake, checkout):
    done, log = run(script, word, python=fake)
    assert done.returncode == 0 and done.stderr == ""
    assert script in done.stdout or "ensure_environment" in done.stdout
    assert len(done.stdout.splitlines()) > 2 and "#" not in done.stdout.split()[0]
    assert log == [] and not (checkout / ".venv").exists()


def test_the_quickstart_takes_no_arguments(run, fake, checkout):
    done, log = run("quickstart.sh", "--workdir=x", python=fake)
    assert (done.returncode, log) == (2, [])
    assert "takes no arguments, not '--workdir=x'" in done.stderr
