"""The SLURM script, under stand-ins for srun, squeue and scontrol."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = ("--config=configs/funlora_digits.py", "--workdir=runs/w", "--config.name=a 'b' $c")


@pytest.fixture
def job(cluster):
    """Runs the script as SLURM does: a copy of it elsewhere, in the folder of sbatch."""
    cluster.stand_in("srun", "scontrol", "squeue")
    checkout = cluster.folder / "checkout"
    shutil.copytree(cluster.root / "launch", checkout / "launch")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(cluster.root / name, checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = - ] && exec {sys.executable} "$@"\nexit 0\n')
    python.chmod(0o755)
    copy = cluster.folder / "slurm_script"
    shutil.copy(checkout / "launch" / "slurm.sbatch", copy)

    def call(*words: str, submitted: Path = checkout, answers: dict | None = None, **env: str):
        cluster.answers({"squeue": [[0, "RUNNING\n"]], **(answers or {})})
        env = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(submitted), **env}
        done = cluster.run(copy, *words, **env)
        return done, cluster.calls()

    return call


def test_srun_gets_the_words_as_they_are(job, cluster):
    done, calls = job(*WORDS, SLURM_NTASKS="16", SLURM_JOB_NUM_NODES="2", SLURM_GPUS_ON_NODE="8")
    assert done.returncode == 0, done.stderr
    python = str(cluster.folder / "checkout" / ".venv" / "bin" / "python")
    options = ["--kill-on-bad-exit=0", "--wait=300"]
    assert calls == [["srun", *options, python, "launch/train.py", *WORDS]]


def test_a_job_of_an_array_trains_the_task_of_its_number(job):
    done, calls = job("--workdir=runs/w", SLURM_ARRAY_TASK_ID="3", SLURM_NTASKS="1")
    assert done.returncode == 0, done.stderr
    assert calls[0][4:] == ["launch/learn.py", "--workdir=runs/w", "--only=3"]


def test_a_job_of_an_array_trains_the_cell_of_its_number(job):
    words = ("--config=fmlora_digits", "--seeds=0,1", "--out=runs/digits")
    done, calls = job("sweep", *words, SLURM_ARRAY_TASK_ID="3", SLURM_NTASKS="1")
    assert done.returncode == 0, done.stderr
    assert calls[0][4:] == ["launch/sweep.py", *words, "--only=3"]


def test_75_goes_back_into_the_queue(job):
    done, calls = job(*WORDS, answers={"srun": [[75, ""]]}, SLURM_RESTART_COUNT="2")
    assert done.returncode == 75
    assert [call[0] for call in calls] == ["srun", "squeue", "scontrol"]
    assert calls[-1] == ["scontrol", "requeue", "7"]
    assert "start 3" in done.stdout and "goes back into the queue" in done.stdout


@pytest.mark.parametrize("code", [0, 1, 2, 130, 137])
def test_other_codes_end_the_job(code, job):
    done, calls = job(*WORDS, answers={"srun": [[code, ""]]})
    assert done.returncode == code
    assert [call[0] for call in calls] == ["srun"]


def test_a_cancelled_job_is_not_requeued(job):
    done, calls = job(*WORDS, answers={"srun": [[75, ""]], "squeue": [[0, "COMPLETING\n"]]})
    assert done.returncode == 75
    assert [call[0] for call in calls] == ["srun", "squeue"]
    assert "job 7 is COMPLETING" in done.stdout


def test_a_refused_requeue_says_what_to_do(job):
    refused = {"srun": [[75, ""]], "scontrol": [[1, "disabled\n"]]}
    done, _ = job(*WORDS, answers=refused)
    assert done.returncode == 2
    assert "submit the same command again" in done.stderr


def test_the_script_outlives_the_signal_that_stops_the_program(job, cluster):
    """On preemption SLURM signals the script, too."""
    cluster.script("srun", 'kill -TERM "$PPID"; exit 75')
    done, calls = job(*WORDS)
    assert done.returncode == 75
    assert calls[-1] == ["scontrol", "requeue", "7"]


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        ((), {}, "the arguments of launch/train.py are missing"),
        (
            WORDS,
            {"SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"},
            "2 tasks for 16 GPUs: --ntasks-per-node and --gpus-per-node have to be equal",
        ),
        (("sweep",), {}, "the arguments of launch/sweep.py are missing"),
        (
            ("sweep", *WORDS),
            {"SLURM_NTASKS": "8", "SLURM_GPUS_ON_NODE": "8"},
            "8 tasks for one cell of a sweep: --ntasks-per-node has to be 1",
        ),
        (WORDS, {"SLURM_SUBMIT_DIR": "/nowhere"}, "/nowhere is no checkout of flcl"),
    ],
)
def test_mistakes_are_told_before_anything_runs(words, env, said, job):
    done, calls = job(*words, **env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert calls == []


def test_a_single_task_may_take_all_gpus(job):
    done, calls = job(*WORDS, SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_GPUS_ON_NODE="8")
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1


def test_the_job_may_be_requeued_and_keeps_its_log(root):
    text = (root / "launch" / "slurm.sbatch").read_text()
    options = set(re.findall(r"^#SBATCH (\S+)$", text, re.M))
    # The signal goes to the steps: with `B:` only the script would see it.
    assert {"--requeue", "--open-mode=append", "--signal=TERM@180"} <= options
    sizes = dict(re.findall(r"^#SBATCH --(ntasks|gpus)-per-node=(\d+)$", text, re.M))
    assert sizes["ntasks"] == sizes["gpus"]
    first = re.search(r"^[^#\n]", text, re.M).start()
    assert text.rfind("#SBATCH") < first, "SLURM reads no options after the first command"


def test_shellcheck(root):
    tool = Path(sys.executable).parent / "shellcheck"
    script = root / "launch" / "slurm.sbatch"
    done = subprocess.run(
        [tool, "--external-sources", script], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
