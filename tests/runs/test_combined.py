"""One command trains a generator and the classifier that has it as memory."""

import dataclasses
import json

import killed as moments
import pytest
import tiny

import flcl
from flcl import settings


def both_of(data, **changes) -> settings.Combined:
    return tiny.both_of(data, memory__per_class=4, **changes)


def test_both_are_trained_and_a_killed_classifier_continues(data, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        moments.install("while testing task 2", tmp_path, patch, kill=moments.end)
        with pytest.raises(moments.Killed):
            flcl.run(both_of(data), tmp_path)
    first = (tmp_path / "generator" / "results.json").read_bytes()
    assert json.loads(first)["complete"] and not (tmp_path / "config.json").exists()
    results = flcl.run(both_of(data), tmp_path)
    assert (tmp_path / "generator" / "results.json").read_bytes() == first
    assert results["generator"] == json.loads(first)
    assert results["classifier"]["complete"]
    assert results["classifier"]["old_classes"]["samples_per_class"] == 4
    runs = flcl.train(both_of(data), tmp_path)  # complete: both are only opened
    assert [run.kind for run in runs] == ["generator", "classifier"]
    assert runs.classifier.workdir == tmp_path / "classifier" and runs.generator.results.complete
    with pytest.raises(ValueError, match="holds two runs.*generator and .*classifier"):
        flcl.open_run(tmp_path)
    stored = json.loads((tmp_path / "classifier" / "config.json").read_text())
    assert stored["memory"]["generator"] == str(tmp_path / "generator")
    assert len(stored["memory"]["sha256"]) == 64
    # Another generator in its place is not taken without a word.
    other = dataclasses.replace(both_of(data).with_generator(str(tmp_path / "generator")), seed=0)
    memory = dataclasses.replace(other.memory, generator="")
    with pytest.raises(ValueError, match="memory.sha256: '.*' -> ''"):
        flcl.run(dataclasses.replace(other, memory=memory), tmp_path / "classifier")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream__class_order": "seed:1"}, "in task 1 the generator learns ant, bee, the class"),
        ({"stream__tasks": "2"}, "in task 1 the generator learns ant, bee, the classifier ant, be"),
        ({"stream__joint": True}, "in task 1 the generator learns ant, bee, the classifier ant, b"),
        ({"drift__images": "folder:none"}, "classifier: drift.images: folder:none: no such folder"),
        ({"data__source": "npz:none"}, "classifier: npz:none"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        flcl.run(both_of(data, **changes), tmp_path / "both")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "both").exists()


def test_other_programs_take_one_run(data):
    with pytest.raises(ValueError, match="those of two runs"):
        flcl.describe(both_of(data))
