"""Runs with heads, drift and alignment go on after a stop as if they had never stopped.

The most different parts that a classifier can have are in one of them. Each run is stopped inside
a task and between the training of a task and its statistics.
"""

import json

import jax
import killed as moments
import numpy as np
import pytest
import tiny
from PIL import Image

import flcl
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import prepare

HEADS = ("linear", "class_mean", "lda", "ridge", "gaussian")
MOMENTS = (
    "in task 1, after its saves",
    "before the statistics of task 1",
    "in task 2, after a save",
    "before the statistics of task 2",
)
MOVING = {"drift__diagnose": True, "drift__correction": "linear"}
RUNS = {
    "held-out losses, grown bases": (
        "fmlora",
        {
            "rank__selector": "holdout:0.01",
            "lora__blocks": "0",
            "lora__bases": "gradient",
            "lora__capacity": 6,
            "lora__grow": 0.9,
            "lora__coverage": True,
            "prompt__average": True,
            "train__loss": "gaussian",
        },
    ),
    "rsiat": ("rsiat", {"align__covariance": "class", "bottleneck__blocks": "0"}),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        Image.effect_noise((8, 8), 40 + number).save(folder / f"{number}.png")
    return folder


def start(run, workdir, point="never"):
    with pytest.MonkeyPatch.context() as patch:
        moments.install(point, workdir, patch, kill=moments.end)
        flcl.run(run, workdir)


def final_memory(run, workdir):
    setup, _ = prepare(run)
    memory = empty_memory(setup)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        for task in setup.data.stream.tasks:
            memory = restore_task(setup, checkpoints, memory, task)
    return jax.tree.map(np.asarray, memory)


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_ends_with_the_same_bytes(name, data, tmp_path, pictures):
    method, changes = RUNS[name]
    changes = dict(changes)
    changes |= {"heads__fit": HEADS, "heads__holdout": 0.2}
    changes |= {"runtime__save_every": 2, "runtime__log_every": 1, **MOVING}
    changes["drift__images"] = f"folder:{pictures}"
    run = tiny.classifier_of(data, method, **changes)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    start(run, alone)
    for moment in MOMENTS:
        with pytest.raises(moments.Killed):
            start(run, stopped, moment)
    start(run, stopped)
    assert (alone / "results.json").read_bytes() == (stopped / "results.json").read_bytes()
    got, want = (final_memory(run, folder) for folder in (stopped, alone))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    if method == "rsiat":
        results = json.loads((stopped / "results.json").read_text())
        top1 = flcl.open_run(stopped).evaluate_on()["top1"]
        assert results["complete"] and results["rank_selection"] == []
        assert top1 == pytest.approx(results["summary"]["last_accuracy"])
        changed = np.abs(got["aligned"]["kernel"] - got["head"]["kernel"])
        assert np.all(changed.max(axis=0)[:6] > 0) and not changed[:, 6:].any()
