"""A run on image files of which some are unreadable, begun and continued."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

import flcl
from flcl.devices import hosts
from flcl.runs.saved import workdir as workdirs
from flcl.runs.setup import prepare


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """Six classes with three training and two test images each; one training image is damaged."""
    random = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for label in range(tiny.CLASSES):
            folder = tmp_path / "pictures" / part / f"class_{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    damaged = tmp_path / "pictures" / "train" / "class_4" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return tmp_path / "pictures"


def run_of(pictures, **changes):
    changes = {"data__source": f"folder:{pictures}", "data__memory_gib": 0.0, **changes}
    return tiny.classifier_of(pictures, "class_mean", **changes)


def test_a_bad_image_of_a_later_task_is_named_before_anything_is_written(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 30 images cannot be used: train/class_4/1\.png"):
        flcl.run(run_of(pictures), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_images_that_it_left_out(pictures, tmp_path, capsys):
    run, workdir = run_of(pictures, data__bad_images="skip"), tmp_path / "run"
    results = flcl.run(run, workdir)
    found = "17 training and 12 test images, 3 tasks; 1 unreadable image is left out"
    assert found in capsys.readouterr().out
    bad = "train/class_4/1.png"
    stored = json.loads((workdir / "stream.json").read_text())
    assert stored["skipped"] == {"count": 1, "files": [bad]}
    assert stored["train_images"] == [3, 3, 3, 3, 2, 3]
    assert workdirs.left_out(workdir) == [bad]

    (pictures / bad).unlink()
    assert flcl.run(run, workdir) == results
    assert flcl.open_run(workdir).evaluate()["matrix"] == results["matrix"]
    (pictures / "train" / "class_5" / "0.png").write_bytes(b"nothing")
    message = r"train/class_5/0\.png \(.*; a run that has begun needs the same images"
    with pytest.raises(ValueError, match=message):
        flcl.run(run, workdir)
    assert json.loads((workdir / "stream.json").read_text()) == stored


def test_images_of_a_run_are_decided_by_its_saves(tmp_path):
    assert workdirs.left_out(tmp_path) is None
    (tmp_path / "checkpoints" / "tasks" / "1").mkdir(parents=True)
    assert workdirs.left_out(tmp_path) is None
    for content, expected in (
        ("{}", []),
        ('{"skipped": {"count": 1, "files": ["a.png"]}}', ["a.png"]),
        ('{"skipped": ["a.png"]}', None),
        ('{"skipped": {"files": [1]}}', None),
        ("[]", None),
        ("{", None),
    ):
        (tmp_path / "stream.json").write_text(content)
        assert workdirs.left_out(tmp_path) == expected


def test_processes_must_leave_the_same_images_out(pictures, monkeypatch):
    run = run_of(pictures, data__bad_images="skip")
    for first, where in (([], "process 0"), (["a.png", "train/class_4/1.png"], "the first proc")):
        monkeypatch.setattr(hosts, "from_main", lambda value, first=first: first)
        with pytest.raises(ValueError, match=f"png is unreadable in {where}.* and not in others"):
            prepare(run)
