"""The cells of a sweep one after the other, with a stand-in for the process that trains."""

import fcntl
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import flcl
from flcl import files, programs
from flcl.settings import formats
from flcl.sweep import running

# It does what its folder is called, and writes its words into `calls`.
STAND_IN = """#!/bin/sh
echo "$@" >> {here}/calls
for word in "$@"; do
  case "$word" in --workdir=*) folder="${{word#--workdir=}}" ;; esac
done
case "$folder" in
  *s1) echo "a line"; echo "error: s1 cannot be trained" >&2; exit 2 ;;
  *s2) kill -KILL $$ ;;
  *s3) exit 0 ;;
  *s4) trap 'echo saved > "$folder/saved"; exit 75' TERM; sleep 60 & touch {here}/waits
       wait $! ;;
esac
cp {here}/config-${{folder##*s}}.json "$folder/config.json"
cp {here}/results.json "$folder/results.json"
"""


def store(path: Path, seed: int) -> None:
    """Writes the `config.json` of a cell."""
    run = flcl.load_config("fmlora_digits", {"seed": seed})
    files.write_json(path, formats.to_store(run))


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys, root):
    """Runs `flcl sweep` over some seeds with the stand-in; returns its code and its texts."""
    stored = gzip.decompress((root / "tests/runs/frozen/results_fmlora.json.gz").read_bytes())
    results = json.loads(stored) | {"complete": True}
    (tmp_path / "results.json").write_text(json.dumps(results))
    for seed in range(6):
        store(tmp_path / f"config-{seed}.json", seed)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(here=tmp_path))
    stand_in.chmod(0o755)
    (tmp_path / "calls").touch()

    def run(seeds: str, *words: str):
        argv = ["flcl", "--config=fmlora_digits", f"--seeds={seeds}", f"--out={tmp_path}/out"]
        monkeypatch.setattr("sys.argv", [*argv, *words])
        monkeypatch.setattr(running.sys, "executable", str(stand_in))
        try:
            code = programs.run("sweep")
        finally:
            monkeypatch.undo()
        return code, *capsys.readouterr()

    return run


def seeds_of(calls: Path) -> list[str]:
    return [line.rpartition("--config.seed=")[2] for line in calls.read_text().splitlines()]


def test_a_crash_of_a_cell_does_not_end_the_others(sweep, tmp_path):
    code, out, err = sweep("1,0,2,3,5")
    assert code == 1
    assert seeds_of(tmp_path / "calls") == ["1", "0", "2", "3", "5"]
    assert "[1/5] default-natural-s1" in out and "4 to go, about " in out
    assert "cell default-natural-s1: error: s1 cannot be trained" in err
    assert "cell default-natural-s2: error: ended by SIGKILL" in err
    assert "cell default-natural-s3: error: exit code 0: nothing was printed" in err
    workdir = tmp_path / "out" / "default-natural-s1"
    repeat = f"repeat: flcl train --config=fmlora_digits --workdir={workdir} --config.seed=1"
    assert repeat in err
    assert err.endswith("3 of 5 cells failed\n")
    assert (workdir / "sweep.log").read_text() == "a line\nerror: s1 cannot be trained\n"
    # The same command skips what is finished.
    (tmp_path / "calls").write_text("")
    code, out, err = sweep("1,0,2,3,5", "--only=*s0,*s1,*s5")
    assert code == 1 and seeds_of(tmp_path / "calls") == ["1"]
    assert "2 of 3 cells are finished already" in out and err.endswith("1 of 3 cells failed\n")
    code, out, _ = sweep("0,5")
    assert code == 0 and f"flcl compare {tmp_path}/out/*" in out


def test_a_folder_that_cannot_be_used_does_not_end_the_others(sweep, tmp_path):
    out = tmp_path / "out"
    for seed in (0, 1, 2):
        (out / f"default-natural-s{seed}").mkdir(parents=True)
    (out / "default-natural-s0" / running.LOG).mkdir()
    elsewhere = tmp_path / "elsewhere"
    (out / "default-natural-s1" / running.LOG).symlink_to(elsewhere)
    (out / "default-natural-s2" / running.LOG).symlink_to("/dev/full")
    code, _, err = sweep("0,1,2,5")
    assert code == 1 and seeds_of(tmp_path / "calls") == ["5"] and not elsewhere.exists()
    assert "3 of 4 cells failed" in err and "cell default-natural-s0: error: " in err
    assert err.count("symbolic link that leads out of the workdir") == 2


def test_results_without_their_settings_are_not_finished(sweep, tmp_path):
    folder = tmp_path / "out" / "default-natural-s5"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "results.json", folder)
    assert sweep("5")[0] == 0 and seeds_of(tmp_path / "calls") == ["5"]
    shutil.rmtree(folder)
    folder.touch()
    code, _, err = sweep("5")
    assert code == 2 and "default-natural-s5 is a file, and a folder is needed" in err


def test_two_sweeps_share_the_cells_of_a_folder(sweep, tmp_path, monkeypatch):
    """The other one trains s1, and finishes it while this one waits; it is killed inside s5."""
    kept = []
    for name in ("default-natural-s1", "default-natural-s5"):
        (tmp_path / "out" / name).mkdir(parents=True)
        log = (tmp_path / "out" / name / running.LOG).open("ab")
        # The lock belongs to the process that trains, too.
        kept.append(subprocess.Popen(["sleep", "60"], stdout=log))
        fcntl.flock(log, fcntl.LOCK_EX)
        log.close()

    tried, lock = [], running._locked_log
    monkeypatch.setattr(running, "_locked_log", lambda cell: tried.append(cell) or lock(cell))

    def end():
        while len(tried) < 5:  # all three, and then the two that are locked
            time.sleep(0.02)
        shutil.copy(tmp_path / "config-1.json", tmp_path / "out/default-natural-s1/config.json")
        shutil.copy(tmp_path / "results.json", tmp_path / "out/default-natural-s1")
        for process in kept:
            process.kill()
            process.wait()

    other = threading.Thread(target=end)
    other.start()
    code, out, _ = sweep("1,5,0")
    other.join()
    assert code == 0 and seeds_of(tmp_path / "calls") == ["0", "5"]
    assert "waiting for another process, which trains default-natural-s1, default-natural-s5" in out
    assert "default-natural-s1: finished by another process" in out


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_the_cell_well(number, expected, sweep, tmp_path):
    def send():
        while not (tmp_path / "waits").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    code, _, err = sweep("0,4,5")
    sender.join()
    assert code == expected and "run the same command to continue" in err
    assert seeds_of(tmp_path / "calls") == ["0", "4"]
    assert (tmp_path / "out" / "default-natural-s4" / "saved").exists()


def test_the_process_of_a_cell_is_flcl_train(tmp_path, monkeypatch, capsys):
    """Also from another folder, in which a file is called like a library."""
    (tmp_path / "jax.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    words = ["--config=fmlora_digits:smoke", "--config.model.weights=none.npz", "--out=runs"]
    monkeypatch.setattr("sys.argv", ["flcl", *words])
    assert programs.run("sweep") == 1
    told = capsys.readouterr().err
    assert "cell default-natural-s0: error: model.weights='none.npz': no such file" in told
    assert sys.executable not in told
