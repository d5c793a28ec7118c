"""Two processes with two devices each make the run that one process with four devices makes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny

import flcl
from flcl import stopping
from flcl.devices import hosts

ROOT = Path(__file__).resolve().parents[2]


def command(data, workdir, method, point="never", others=()):
    return [
        sys.executable,
        ROOT / "tests" / "runs" / "killed.py",
        data,
        workdir,
        point,
        method,
        *others,
    ]


def environment(devices: int) -> dict:
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "JAX_NUM_CPU_DEVICES": str(devices),
        # Compiling is nearly all of it.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }


def one_process(data, workdir, method) -> None:
    """Trains, or goes on, with all devices of this process."""
    flcl.run(tiny.run_of(data, method, runtime__save_every=2, runtime__log_every=1), workdir)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def two_processes(data, workdir, method, points=("never", "never")) -> list[tuple[int, str]]:
    """(exit code, output) of two processes with two devices each that make a run."""
    return both(
        lambda number, address: command(
            data, workdir, method, points[number], (address, "2", str(number))
        )
    )


def both(words) -> list[tuple[int, str]]:
    """(exit code, output) of the programs `words(number, address of the first)`."""
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            words(number, address),
            env=environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    with ThreadPoolExecutor(len(started)) as pool:
        outputs = list(pool.map(lambda process: finish(process, started), started))
    return [(process.returncode, text) for process, text in zip(started, outputs, strict=True)]


def finish(process, everyone) -> str:
    """Output of a process; when it fails the others end with it, as under every launcher."""
    try:
        text = process.communicate(timeout=600)[0]
    finally:
        if process.returncode != 0:
            deadline = time.monotonic() + 20  # they may be about to say the same
            while time.monotonic() < deadline and any(p.poll() is None for p in everyone):
                time.sleep(0.1)
            for other in everyone:
                other.kill()
    return text


def losses(workdir) -> dict[tuple[int, int], float]:
    """Loss by (task, step)."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {(line["task"], line["step"]): line["loss"] for line in lines if "loss" in line}


def assert_same_run(got: Path, want: Path) -> None:
    """The same losses, and the same results up to one test image."""
    left, right = losses(got), losses(want)
    assert left.keys() == right.keys()
    np.testing.assert_allclose(list(left.values()), list(right.values()), rtol=2e-5)
    matrices = []
    for workdir in (got, want):
        results = json.loads((workdir / "results.json").read_text())
        assert results["complete"]
        matrices.append(np.array(results["matrix"], float))
    # Rounding may turn one of a task's sixteen test images.
    np.testing.assert_allclose(*matrices, atol=1 / 16)


@pytest.fixture(scope="module")
def references(data, tmp_path_factory):
    """One process with all of its devices, by method."""
    workdirs = {}
    for method in ("funlora", "fmlora"):
        workdirs[method] = tmp_path_factory.mktemp("one") / method
        one_process(data, workdirs[method], method)
    return workdirs


@pytest.fixture(scope="module")
def interrupted(data, tmp_path_factory):
    """Two processes killed in task 1, a copy of that, then stopped while they test it.

    FM-LoRA, because its programs are the smaller ones.
    """
    workdir = tmp_path_factory.mktemp("two") / "run"
    killed = two_processes(data, workdir, "fmlora", ["in task 1, after its saves"] * 2)
    # Both die at the same step, unless one sees the other die first.
    codes = {code for code, _ in killed}
    assert -signal.SIGKILL in codes and codes <= {-signal.SIGKILL, -signal.SIGABRT, 1}, killed
    shutil.copytree(workdir, workdir.with_name("killed"))
    # Only one of them is told.
    testing = "asked to stop while testing task 1"
    stopped = two_processes(data, workdir, "fmlora", ["never", testing])
    assert [code for code, _ in stopped] == [stopping.STOPPED] * 2, stopped
    assert re.search(r"continuing task 1 at step [24]", stopped[0][1])
    assert not (workdir / "results.json").exists()
    return workdir


@pytest.mark.parametrize("method", ["funlora", "fmlora"])
def test_two_processes_make_the_same_run(references, interrupted, data, tmp_path, method):
    """FunLoRA at one go, FM-LoRA after it was killed and stopped."""
    workdir = tmp_path / "run"
    if method == "fmlora":
        shutil.copytree(interrupted, workdir)
    both = two_processes(data, workdir, method)
    assert [code for code, _ in both] == [0, 0], both
    assert_same_run(workdir, references[method])
    # The first process alone speaks and writes.
    assert "report.html" in both[0][1] and "accuracy" not in both[1][1]
    lines = [
        len((folder / "metrics.jsonl").read_text().splitlines())
        for folder in (workdir, references[method])
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("left", ["killed", "stopped"])
def test_what_two_processes_left_continues_in_one(
    interrupted, references, data, tmp_path, left, capsys
):
    """Two processes with two devices each left it; one with four goes on."""
    workdir = interrupted if left == "stopped" else interrupted.with_name("killed")
    workdir = shutil.copytree(workdir, tmp_path / "run")
    one_process(data, workdir, "fmlora")
    printed = capsys.readouterr().out
    assert ("continuing task 1 at step" in printed) == (left == "killed")
    assert_same_run(workdir, references["fmlora"])


def test_two_processes_draw_the_same_images(references, tmp_path):
    out, reference = tmp_path / "images.npz", references["funlora"]

    def words(number, address):
        program = [sys.executable, ROOT / "launch" / "sample.py", f"--workdir={reference}"]
        own = [f"--coordinator={address}", "--processes=2", f"--process={number}"]
        return [*program, f"--out={out}", "--classes=0,4", "--per_class=5", *own]

    ended = both(words)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "images.npz" in ended[0][1] and "images.npz" not in ended[1][1]
    with np.load(out) as found:
        drawn = found["images"].astype(int)
    own = flcl.open_run(reference).sample([0, 4], 5).images.astype(int)
    assert np.abs(drawn - own).max() <= 1  # rounding


def test_a_folder_of_another_run_is_refused_by_all(interrupted, data, tmp_path):
    workdir = shutil.copytree(interrupted, tmp_path / "run")
    before = (workdir / "config.json").read_bytes()
    both = two_processes(data, workdir, "funlora")
    assert all(code == 1 and "holds a run of another config" in text for code, text in both), both
    assert (workdir / "config.json").read_bytes() == before


def test_connections_are_made_before_they_are_used():
    """Making one is what another process's long compile can break."""
    script = ROOT / "tests" / "devices" / "connected.py"
    ended = both(lambda number, address: [sys.executable, script, address, "2", str(number)])
    assert [code for code, _ in ended] == [0, 0], ended
    for _, text in ended:
        making, using = text.split("connected\n", 1)
        assert "[Gloo] Rank" in making  # how a new connection is announced
        assert using.split() == ["4.0", "2.0", "2.0"]


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # the batch script around the tasks
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[1-4]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, False),
    ],
)
def test_clusters_are_recognised(variables, several):
    assert hosts.several_expected(variables) is several


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("node:1", 2, None), "all three are needed"),
        (("node:1", 2, 2), "--process=2: from 0 to --processes=2 minus 1"),
        (("node", 2, 0), "--coordinator='node': HOST:PORT is needed"),
    ],
)
def test_half_a_description_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hosts.start(*arguments)
