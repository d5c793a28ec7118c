"""Tiny runs of DDGR, GUIDE and JDCL: what they read, what they store, and how they go on."""

import json

import jax
import killed
import numpy as np
import pytest
import tiny

import flcl
from flcl.data.sequence.tasks import TaskData
from flcl.runs import experiment


class Quiet:
    """A reporter that shows and draws nothing: this costs most of a tiny run."""

    def __init__(self, *_):
        pass

    def __getattr__(self, name):
        return lambda *_: (lambda *_: None) if name == "progress" else None


def reads_of(patch) -> list[tuple[int, int]]:
    """(task that trains, task whose real images are asked for), while something trains."""
    asked, now = [], []
    train, read = experiment.Experiment.train, TaskData.train

    def training(self, memory, task):
        now.append(task.index)
        try:
            return train(self, memory, task)
        finally:
            now.pop()

    def reading(self, task):
        asked.extend((index, task.index) for index in now)
        return read(self, task)

    patch.setattr(experiment.Experiment, "train", training)
    patch.setattr(TaskData, "train", reading)
    return asked


@pytest.mark.parametrize("method", ["ddgr", "guide", "jdcl"])
def test_a_rival_forgets_its_images_and_survives_a_kill(method, data, tmp_path):
    small = {"stream__tasks": "3,3", "phase1__steps": 4, "phase2__steps": 6}
    run = tiny.settings_of(data, method, **small, runtime__save_every=2, runtime__log_every=1)
    with pytest.MonkeyPatch.context() as patch:
        asked = reads_of(patch)
        experiment.run(run, tmp_path / "whole", Quiet)
    assert set(asked) == {(1, 1), (2, 2)}
    with pytest.MonkeyPatch.context() as patch:
        killed.install("in task 2, after a save", tmp_path / "run", patch, kill=killed.end)
        with pytest.raises(killed.Killed):
            experiment.run(run, tmp_path / "run", Quiet)
    experiment.run(run, tmp_path / "run", Quiet)
    same = [(tmp_path / name / "results.json").read_bytes() for name in ("whole", "run")]
    assert same[0] == same[1]
    memories = [tiny.memory_of(tmp_path / name) for name in ("whole", "run")]
    jax.tree.map(np.testing.assert_array_equal, *memories)
    assert memories[0]["seen"].tolist() == [True] * 6 + [False] * (len(memories[0]["seen"]) - 6)
    check_own_classifier(json.loads(same[0]))
    check_opened(tmp_path / "run", pure=method == "ddgr")


def check_own_classifier(results: dict) -> None:
    """The matrix of the classifier is that of its rows, and it is no copy of the judge's."""
    assert results["complete"]
    matrix = results["own_classifier"]["matrix"]
    assert [row["own_classifier"] for row in results["rows"]] == [matrix[0][:1], matrix[1]]
    assert matrix[0][1] is None and all(0 <= value <= 1 for value in matrix[1])
    last = np.mean(matrix[1])  # groups of equal size
    assert results["own_classifier"]["summary"]["last_accuracy"] == pytest.approx(last)
    assert results["parameters"]["classifier_parameters"] > 0


def check_opened(workdir, pure: bool) -> None:
    """Samples, pure functions and removal, as for the other methods of one network."""
    run = flcl.open_run(workdir)
    images = run.sample(labels=["cat", "fox"]).images
    assert images.shape == (2, 8, 8, 1) and (images[0] != images[1]).any()
    if pure:  # of the three, only the samples of DDGR are not those of its network alone
        parameters, sample = run.functional()
        drawn = np.asarray(jax.jit(sample)(parameters, run.key(), np.array([2, 5])))
        assert np.abs((np.clip(drawn, -1, 1) + 1) * 127.5 - images).max() <= 1.01
    with pytest.raises(ValueError, match="all classes share one network"):
        run.export_classes(["cat"], workdir / "files")
