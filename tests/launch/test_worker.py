"""What runs on the hosts of a TPU slice: for real, in folders that stand for their home folders."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

WORDS = ("--config=configs/funlora_digits.py", "--config.name=a 'b' $c")

# Stands in for Python: environments and pip are imitated, the program is the script `program`.
PYTHON = """
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "${*: -1}" >>"$HOME/installed" ;;
  *version_info*) exit "${OLD:-0}" ;;
  *python_version*) echo 3.12.1 ;;
  "- "*) exec "REAL" "$@" ;;
  launch/train.py*) printf '%s\\n' "$@" >"$HOME/words"; source "PROGRAM" ;;
esac
"""


def until(holds, seconds: float = 90) -> None:
    """Waits until `holds()`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


class Hosts:
    """The hosts of a slice: a home folder each, with the checkout in it."""

    def __init__(self, cluster, count: int):
        self.cluster = cluster
        self.homes = [cluster.folder / f"host-{number}" for number in range(count)]
        for home in self.homes:
            home.mkdir()
        self.share = cluster.folder / "share"
        self.share.mkdir()
        self.program = cluster.folder / "program"
        cluster.script("hostname", 'echo "t1v-n-abc-w-${HOME##*-}"')
        cluster.stand_in("sudo", "apt-get")
        text = PYTHON.replace("REAL", sys.executable).replace("PROGRAM", str(self.program))
        self.python = cluster.script("new-python", text)

    def copy(self) -> None:
        """Puts the checkout and its environment on every host."""
        for home in self.homes:
            shutil.copytree(self.cluster.root / "launch", home / "flcl" / "launch")
            for name in ("pyproject.toml", "constraints.txt"):
                shutil.copy(self.cluster.root / name, home / "flcl")

    def call(self, host: int, *words: str | Path, **env: str):
        home = self.homes[host]
        script = home / "flcl" / "launch" / "_worker.sh"
        return self.cluster.run(script, *words, HOME=str(home), **env)

    def wait_for(self, host: int, state: str) -> None:
        until(lambda: self.call(host, "state").stdout == f"flcl-worker {host} {state}\n")


@pytest.fixture
def hosts(cluster):
    made = Hosts(cluster, 2)
    yield made
    for home in made.homes:
        if (home / ".flcl-run" / "pid").exists() and (home / "flcl").exists():
            made.call(int(home.name[-1]), "stop")


@pytest.fixture
def ready(hosts) -> Hosts:
    """Two hosts on which everything is installed."""
    hosts.copy()
    for number in range(len(hosts.homes)):
        done = hosts.call(number, "setup", FLCL_PYTHON=str(hosts.python))
        assert done.returncode == 0, done.stderr
    return hosts


def start(hosts: Hosts, host: int, program: str, workdir: Path | None = None):
    hosts.program.write_text(program)
    workdir = workdir or hosts.share / "w"
    hosts.call(0, "claim", workdir, "token")
    return hosts.call(host, "start", workdir, "token", *WORDS)


def test_setup_installs_the_tpu_extra(ready):
    assert (ready.homes[0] / "installed").read_text() == ".[tpu]\n"


def test_setup_brings_a_newer_python_where_all_are_old(hosts):
    """Ubuntu 22.04, which TPU VMs run, has 3.10."""
    hosts.copy()
    bin = hosts.cluster.bin
    found = f'[ "$2" = find ] && echo "{bin}/new-python"'
    uv = hosts.cluster.folder / "uv"
    uv.write_text(f'#!/bin/sh\necho "$*" >>"$HOME/asked"\n{found}\nexit 0\n')
    uv.chmod(0o755)
    install = f'mkdir -p "$HOME/.local/bin" && cp "{uv}" "$HOME/.local/bin"'
    old = f'case "$*" in *version_info*) exit 1 ;; "-m pip install"*" uv") {install} ;; esac'
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        hosts.cluster.script(name, f'echo "$*" >>"$HOME/asked"\n{old}')
    # A uv of this machine is none of the host's.
    own = [each for each in os.get_exec_path() if not (Path(each) / "uv").exists()]
    path = os.pathsep.join([str(bin), *own])
    done = hosts.call(0, "setup", PATH=path)
    assert done.returncode == 0, done.stderr
    asked = (hosts.homes[0] / "asked").read_text().splitlines()
    uv_calls = ["python install --quiet 3.12", "python find 3.12"]
    assert asked[-3:] == ["-m pip install --user --quiet uv", *uv_calls]
    assert (hosts.homes[0] / "installed").read_text() == ".[tpu]\n"
    assert hosts.call(0, "setup", PATH=path).returncode == 0
    again = (hosts.homes[0] / "asked").read_text().splitlines()
    assert again == asked, "an environment that fits is used as it is"


def test_setup_mounts_the_share_once(hosts):
    hosts.copy()
    hosts.cluster.script("mountpoint", '[[ -e "$HOME/mounted" ]]')
    done = hosts.call(0, "setup", "10.0.0.2:/share", FLCL_PYTHON=str(hosts.python))
    assert done.returncode == 0, done.stderr
    called = [call[1:] for call in hosts.cluster.calls() if call[0] == "sudo"]
    mount = ["mount", "-t", "nfs", "-o", "hard,local_lock=flock", "10.0.0.2:/share", "/mnt/flcl"]
    assert called[-2:] == [["mkdir", "-p", "/mnt/flcl"], mount]
    hosts.cluster.forget()
    (hosts.homes[0] / "mounted").touch()
    assert hosts.call(0, "setup", "10.0.0.2:/share").returncode == 0
    assert hosts.cluster.calls() == []


def test_a_program_runs_detached_and_leaves_its_code_and_log(ready):
    assert ready.call(0, "state").stdout == "flcl-worker 0 idle\n"
    done = start(ready, 0, "echo said; exit 75")
    assert done.returncode == 0, done.stderr
    ready.wait_for(0, "exited 75")
    assert (ready.homes[0] / "words").read_text().splitlines() == ["launch/train.py", *WORDS]
    assert (ready.share / "w" / "logs" / "worker-0.log").read_text() == "said\n"


def test_stop_reaches_the_program(ready):
    # No loop of short commands: a signal that arrives while bash forks may be lost.
    program = "trap 'exit 75' TERM; sleep 300 & touch \"$HOME/on\"; wait $!"
    done = start(ready, 1, program)
    assert done.returncode == 0, done.stderr
    until((ready.homes[1] / "on").exists)
    assert ready.call(1, "state").stdout == "flcl-worker 1 running\n"
    second = start(ready, 1, program)
    assert second.returncode == 2
    assert "worker 1 runs a program already" in second.stderr
    ready.call(1, "stop")
    ready.wait_for(1, "exited 75")


def test_a_program_that_vanished_is_lost(ready):
    start(ready, 0, "sleep 30")
    ready.wait_for(0, "running")
    pid = int((ready.homes[0] / ".flcl-run" / "pid").read_text())
    # As a reboot does: the program and what watches it.
    ready.cluster.run("-c", f"kill -{signal.SIGKILL.value} -- -{pid}")
    ready.wait_for(0, "lost")


def test_a_workdir_that_is_not_shared_is_refused(ready):
    done = start(ready, 1, "exit 0", workdir=Path("runs/w"))
    assert done.returncode == 2
    assert "worker 1 does not see workdir runs/w of worker 0" in done.stderr
    assert "--nfs=HOST:/SHARE" in done.stderr
    (ready.share / "taken").write_text("")
    done = ready.call(0, "claim", ready.share / "taken", "token")
    assert done.returncode == 2
    assert "is not writable on worker 0" in done.stderr


GCLOUD = """
for word; do [[ "$word" != --command=* ]] || command="${word#*=}"; done
for word; do [[ "$word" != --worker=* ]] || worker="${word#*=}"; done
case "$4" in
  describe) echo READY ;;
  delete) rm -rf "$HOSTS"/host-*/{*,.flcl-run} ;;
  scp) for home in "$HOSTS"/host-*; do cp "$5" "$home/${6#*:}"; done ;;
  ssh)
    for home in "$HOSTS"/host-*; do
      [[ "$worker" == all || "$home" == *"-$worker" ]] || continue
      (cd "$home" && HOME="$home" bash -c "$command") || exit
    done
    ;;
esac
"""


def test_from_create_to_the_end_with_a_stop_in_between(hosts):
    """All of tpu_pod.sh and of its hosts; only gcloud, Python and the program are stand-ins."""
    hosts.cluster.script("gcloud", f'HOSTS="{hosts.cluster.folder}"\n{GCLOUD}')
    # The first time it is stopped, the second time it goes on to the end.
    seen = f"{hosts.share}/seen-${{HOME##*-}}"
    hosts.program.write_text(f'[[ -e "{seen}" ]] && exit 0; touch "{seen}"; exit 75')
    script = hosts.cluster.root / "launch" / "tpu_pod.sh"
    options = ("--zone=z", "--type=v4-16", f"--python={hosts.python}")
    program = (*WORDS, f"--workdir={hosts.share}/w")
    for words in (("create", "pod", *options), ("setup", "pod"), ("run", "pod", *program)):
        done = hosts.cluster.run(script, *words)
        assert done.returncode == 0, done.stderr
    done = hosts.cluster.run(script, "watch", "pod", "--poll=0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resuming, number") == 1
    for number, home in enumerate(hosts.homes):
        assert (home / "words").read_text().splitlines() == ["launch/train.py", *program]
        assert (hosts.share / "w" / "logs" / f"worker-{number}.log").is_file()
        assert (home / "flcl" / "flcl" / "api.py").is_file(), "the checkout was copied"
