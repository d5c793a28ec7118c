"""Two processes with two devices each make the run that one process with four devices makes."""

import json
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from pair import Pair
from PIL import Image

import flcl
from flcl import stopping
from flcl.devices import hosts

# The rank is chosen by held-out losses of several models, whose exchanges are those of one, too.
# `coverage` sums the gradients of a task before it trains, as a rank by energy does.
STEPS = {"runtime__save_every": 2, "runtime__log_every": 1}
STEPS |= {"rank__selector": "holdout:0.1", "lora__coverage": True}
TWO = {"stream__tasks": "2", **STEPS}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """`started()` gives the living pair of processes, or a new one.

    `started(words)` ends it, and a command starts the new one.
    """
    pairs = []

    def living(words=None) -> Pair:
        if words is not None and pairs and pairs[-1].living:
            pairs[-1].close()
        if not pairs or not pairs[-1].living:
            pairs.append(Pair(tmp_path_factory.mktemp("pair") / "printed", words))
            assert not any(ended.error for ended in pairs[-1].began), pairs[-1].began
        return pairs[-1]

    yield living
    if pairs and pairs[-1].living:
        assert pairs[-1].close() == [0, 0]


@pytest.fixture(scope="module")
def halves(data, tmp_path_factory) -> tuple[str, str]:
    """The first four classes as a source of their own, and the last two."""
    folder = tmp_path_factory.mktemp("halves")
    places = [([0, 1, 2, 3], folder / "four.npz"), ([4, 5], folder / "two.npz")]
    return tuple(str(tiny.part(data, ids, path)) for ids, path in places)


@pytest.fixture(scope="module")
def planned(data, tmp_path_factory) -> Path:
    """FM-LoRA in one process with four devices, with all three tasks planned."""
    workdir = tmp_path_factory.mktemp("one") / "fmlora"
    flcl.run(tiny.run_of(data, "fmlora", **STEPS), workdir)
    return workdir


def assert_ended(ended, code: int = 0) -> None:
    assert [each.code for each in ended] == [code, code], ended


def losses(workdir) -> dict[tuple[int, int], float]:
    """Loss by (task, step)."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {(line["task"], line["step"]): line["loss"] for line in lines if "loss" in line}


def assert_same_run(got: Path, want: Path, tasks: int) -> None:
    """The same losses, results and memory after `tasks` tasks, up to rounding."""
    left, right = losses(got), losses(want)
    right = {place: loss for place, loss in right.items() if place[0] <= tasks}
    assert left.keys() == right.keys()
    np.testing.assert_allclose(list(left.values()), list(right.values()), rtol=2e-5)
    results = [json.loads((workdir / "results.json").read_text()) for workdir in (got, want)]
    assert results[0]["complete"]
    # Rounding may turn one of a task's sixteen test images.
    for name in ("matrix", *(f"heads.{head}.matrix" for head in results[0].get("heads", ()))):
        matrices = [_entry(each, name) for each in results]
        part = [np.array(rows, float)[:tasks, :tasks] for rows in matrices]
        np.testing.assert_allclose(*part, atol=1 / 16, err_msg=name)
    for one, other in zip(*(results[k]["diagnosis"][:tasks] for k in (0, 1)), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.get("rank_selection", {}).items():
            values = [np.array(each, float) for each in (value, other["rank_selection"][name])]
            np.testing.assert_allclose(*values, rtol=1e-4, err_msg=name)
    memories = [_memory(workdir, tasks) for workdir in (got, want)]
    for (path, here), (_, there) in zip(*memories, strict=True):
        here, there = np.asarray(here, np.float32), np.asarray(there, np.float32)
        limit = 1e-4 * max(1.0, np.abs(there).max(initial=0))
        np.testing.assert_allclose(here, there, rtol=1e-3, atol=limit, err_msg=str(path))


def _entry(results: dict, name: str):
    for word in name.split("."):
        results = results[word]
    return results


def _memory(workdir: Path, tasks: int):
    return jax.tree.leaves_with_path(flcl.open_run(workdir)._memory(tasks))


def test_a_command_starts_both_and_they_draw_the_same_images(started, finished, tmp_path):
    out = tmp_path / "images.npz"
    words = ["sample", f"--workdir={finished}", f"--out={out}", "--classes=0,4", "--per_class=5"]
    ended = started(words).began
    assert_ended(ended)
    assert "images.npz" in ended[0].printed and "images.npz" not in ended[1].printed
    with np.load(out) as found:
        drawn = found["images"].astype(int)
    own = flcl.open_run(finished).sample([0, 4], 5).images.astype(int)
    assert np.abs(drawn - own).max() <= 1  # rounding


def test_connections_are_made_before_they_are_used(started):
    """Making one is what another process's long compile can break."""
    for ended in started().both("connect"):
        making, using = ended.printed.split("connected\n", 1)
        assert "[Gloo] Rank" in making  # how a new connection is announced
        assert using.split() == ["4.0", "2.0", "2.0"]


@pytest.fixture(scope="module")
def learned(started, halves, tmp_path_factory) -> tuple[Path, list, list]:
    """FunLoRA in two processes: two planned tasks, and one that was not; how both jobs ended."""
    workdir = tmp_path_factory.mktemp("learned") / "run"
    job = {"data": halves[0], "workdir": str(workdir), "method": "funlora"}
    first = started().both("train", changes={"stream__tasks": "2"}, **job)
    assert_ended(first)
    words = ["learn", f"--workdir={workdir}", f"--data=npz:{halves[1]}"]
    then = started().both("command", words=words)
    assert_ended(then)
    return workdir, first, then


def test_two_processes_learn_the_run_that_one_planned(learned, finished):
    workdir, first, then = learned
    assert_same_run(workdir, finished, 3)
    # The first process alone speaks and writes.
    for one, other in (first, then):
        assert "report.html" in one.printed and "accuracy" not in other.printed
    lines = [(each / "metrics.jsonl").read_text().count("\n") for each in (workdir, finished)]
    assert lines[0] == lines[1]


def test_errors_of_one_process_end_both(started, learned, halves, tmp_path):
    """Only the first one locks and checks a folder; only the second one lacks the data."""
    workdir = learned[0]
    before = (workdir / "config.json").read_bytes()
    job = {"data": halves[0], "workdir": str(workdir), "method": "fmlora", "changes": TWO}
    ended = started().both("train", **job)
    assert_ended(ended, 2)
    assert all("holds a run of another config" in each.error for each in ended), ended
    assert (workdir / "config.json").read_bytes() == before
    job["workdir"] = str(tmp_path / "run")
    ended = started().both("train", second={"data": str(tmp_path / "none.npz")}, **job)
    assert_ended(ended, 2)
    assert all("none.npz: no such file" in each.error for each in ended), ended
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures without classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.effect_noise((8, 8), 40 + number).save(folder / f"{number}.png")
    return folder


def test_two_processes_train_a_classifier_with_a_generator(
    started, finished, data, pictures, tmp_path
):
    """Its map sees samples and pictures, and its head is aligned; the generator is complete."""
    changes = {
        "drift__correction": "linear",
        "drift__images": f"folder:{pictures}",
        "memory__per_class": 4,
    }
    for place in ("one", "two"):
        shutil.copytree(finished, tmp_path / place / "generator")
    both = {"data": str(data), "workdir": str(tmp_path / "two"), "changes": changes}
    assert_ended(started().both("train_both", **both))
    flcl.run(tiny.both_of(data, "rsiat", **changes), tmp_path / "one")
    one, two = (tmp_path / place / "classifier" for place in ("one", "two"))
    assert_same_run(two, one, 3)
    for file in ("config.json", "stream.json"):
        assert (two / file).read_text().replace(str(two.parent), str(one.parent)) == (
            one / file
        ).read_text()
    results = (tmp_path / "two" / "generator" / "results.json").read_bytes()
    assert results == (finished / "results.json").read_bytes()


@pytest.fixture(scope="module")
def killed(started, halves, tmp_path_factory) -> Path:
    """FM-LoRA in two processes that both die in task 2, after a save."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    job = {"data": halves[0], "workdir": str(workdir), "method": "fmlora", "changes": TWO}
    ended = started().both("train", point="in task 2, after a save", **job)
    # Both die at the same step, unless one sees the other die first.
    codes = {each.code for each in ended}
    assert -signal.SIGKILL in codes and codes <= {-signal.SIGKILL, -signal.SIGABRT, 1}, ended
    return workdir


def test_two_processes_continue_what_was_killed_and_learn_more(
    killed, started, halves, planned, tmp_path
):
    workdir = shutil.copytree(killed, tmp_path / "run")
    job = {"data": halves[0], "workdir": str(workdir), "method": "fmlora", "changes": TWO}
    ended = started().both("train", **job)
    assert_ended(ended)
    assert re.search(r"continuing task 2 at step [24]", ended[0].printed)
    assert_ended(started().both("learn", workdir=str(workdir), data=f"npz:{halves[1]}"))
    assert_same_run(workdir, planned, 3)
    # The gradients of tasks 2 and 3 were summed; task 1 has no bases before it trains.
    assert (tiny.memory_of(workdir)["coverage"][:3] > 0).tolist() == [False, True, True]


@pytest.fixture(scope="module")
def stopped(killed, started, halves, tmp_path_factory) -> Path:
    """The killed run continued by two processes, of which one is told to stop."""
    workdir = shutil.copytree(killed, tmp_path_factory.mktemp("stopped") / "run")
    job = {"data": halves[0], "workdir": str(workdir), "method": "fmlora", "changes": TWO}
    second = {"point": "asked to stop while testing task 2"}
    ended = started().both("train", second, **job)
    assert_ended(ended, stopping.STOPPED)
    return workdir


@pytest.mark.parametrize("left", ["killed", "stopped"])
def test_what_two_processes_left_continues_in_one(
    killed, stopped, halves, planned, tmp_path, left, capsys
):
    """Two processes with two devices each left it; one with four goes on."""
    workdir = shutil.copytree({"killed": killed, "stopped": stopped}[left], tmp_path / "run")
    flcl.run(tiny.run_of(Path(halves[0]), "fmlora", **TWO), workdir)
    continued = "continuing task 2 at step" in capsys.readouterr().out
    assert continued == (left == "killed")
    assert_same_run(workdir, planned, 2)


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
