"""A run that is stopped again and again ends with the bytes of one that was left alone.

Most stops are an exception at a named moment, which no code of the library may catch: what is on
disk then is what a process that dies there leaves behind, once background writes have ended. Two of
each method are a real `kill -9` of a real process, where writes are torn.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import killed as moments
import numpy as np
import pytest
import tiny

import flcl
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import prepare
from flcl.stopping import StoppedError

ROOT = Path(__file__).resolve().parents[2]
# In the order of a run; those of REAL kill a process.
MOMENTS = {
    "funlora": (
        "during a save in task 1",
        "in task 1, after its saves",
        "after task 1 is stored",
        "while judging task 1",
        "during the save of task 2",
        "while writing results of task 2",
    ),
    "fmlora": (
        "during a save in task 1",
        "in task 1, after its saves",
        "in the short run before task 2",
        "while testing task 2",
        "while writing results of task 2",
    ),
}
REAL = {"during a save in task 1", "while writing results of task 2"}


def in_a_process(data, workdir, point, method):
    """One process that trains until it is complete or killed."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "runs" / "killed.py"), data, workdir, point, method],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "JAX_NUM_CPU_DEVICES": str(jax.device_count()),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


def start(data, workdir, method, point="never"):
    """Trains in this process; at `point` it ends with `moments.Killed` or asks to stop."""
    with pytest.MonkeyPatch.context() as patch:
        moments.install(point, workdir, patch, kill=moments.end)
        run = tiny.run_of(data, method, runtime__save_every=2, runtime__log_every=1)
        flcl.run(run, workdir)


def final_memory(data, workdir, method):
    """All parameters of a finished run."""
    setup, _ = prepare(tiny.run_of(data, method))
    memory = empty_memory(setup)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        for task in setup.data.stream.tasks:
            memory = restore_task(setup, checkpoints, memory, task)
    return jax.tree.map(np.asarray, memory)


@pytest.fixture(scope="module", params=tuple(MOMENTS))
def method(request):
    """What is trained."""
    return request.param


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory, method):
    """Workdir of a run that was killed at every moment in turn and then left to finish."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    for moment in MOMENTS[method]:
        if moment in REAL:
            done = in_a_process(data, workdir, moment, method)
            assert done.returncode == -signal.SIGKILL, f"{moment}: {done.stdout}{done.stderr}"
        else:
            with pytest.raises(moments.Killed):
                start(data, workdir, method, moment)
    start(data, workdir, method)
    return workdir


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory, method):
    """Workdir of the same run, never interrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    start(data, workdir, method)
    return workdir


def test_results_have_the_same_bytes(killed, alone):
    assert (killed / "results.json").read_bytes() == (alone / "results.json").read_bytes()


def test_final_parameters_have_the_same_bits(killed, alone, data, method):
    got, want = (final_memory(data, workdir, method) for workdir in (killed, alone))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_no_step_is_logged_twice(killed, alone):
    def without_time(workdir):
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return [line.split('"time"')[0] for line in lines]

    assert without_time(killed) == without_time(alone)


@pytest.mark.parametrize("method", ["funlora"], indirect=True)
def test_a_run_that_is_asked_to_stop_saves_first(alone, data, tmp_path, method, capsys):
    """SIGTERM or Ctrl-C to this process: the run's handler takes it, as in one of its own."""
    workdir = tmp_path / "run"
    with pytest.raises(StoppedError):
        start(data, workdir, method, "asked to stop after the last step of task 1")
    # The task is stored, and nothing of it is judged yet.
    assert (workdir / "checkpoints" / "tasks" / "1").exists()
    assert not (workdir / "results.json").exists()
    with pytest.raises(StoppedError):
        start(data, workdir, method, "asked to stop in task 2")
    running = workdir / "checkpoints" / "running"
    # Where it stopped: six steps of task 1 and three of task 2, between two regular saves.
    assert "9" in {save.name for save in running.iterdir()}
    with pytest.raises(StoppedError):
        start(data, workdir, method, "asked to stop while judging task 2")
    assert "continuing task 2 at step 3" in capsys.readouterr().out
    with pytest.raises(StoppedError) as interrupted:
        start(data, workdir, method, "interrupted in task 3")
    assert interrupted.value.code == 130
    # The step in which it came is saved, not only the last regular save.
    assert "15" in {save.name for save in running.iterdir()}
    start(data, workdir, method)
    assert (workdir / "results.json").read_bytes() == (alone / "results.json").read_bytes()


@pytest.mark.parametrize("method", ["funlora"], indirect=True)
def test_a_damaged_save_inside_a_task_is_skipped(alone, data, tmp_path, method, capsys):
    """Back to the middle of task 1 with a torn newest save: the one before it is used."""
    copy = tmp_path / "run"
    with pytest.raises(moments.Killed):
        start(data, copy, method, "in task 1, after its saves")
    newest = copy / "checkpoints" / "running" / "4"
    arrays = (newest / "state" / "d").iterdir()
    largest = max(arrays, key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    capsys.readouterr()
    start(data, copy, method)
    printed = capsys.readouterr().out
    assert "cannot be read" in printed or "changed on disk" in printed
    # What a run says before anything moves.
    assert "six.npz: 6 classes, 144 training and 48 test images, 3 tasks, 4 x cpu" in printed
    assert (copy / "results.json").read_bytes() == (alone / "results.json").read_bytes()
    shutil.rmtree(copy)
