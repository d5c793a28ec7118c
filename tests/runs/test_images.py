"""A run on image files of which some are unreadable, begun and continued."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

import flcl
from flcl import files
from flcl.data.base import Begun, hashed_place
from flcl.devices import hosts
from flcl.runs.saved import workdir as workdirs
from flcl.runs.setup import prepare
from flcl.settings import bridge
from flcl.storage.seals import Seals


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
    room = {"capacity": 16, "slots": 8, "rows": 4}
    assert workdirs.begun(workdir) == Begun((bad,), room=room)

    (pictures / bad).unlink()
    assert flcl.run(run, workdir) == results
    assert flcl.open_run(workdir).evaluate()["matrix"] == results["matrix"]
    (pictures / "train" / "class_5" / "0.png").write_bytes(b"nothing")
    message = r"train/class_5/0\.png \(.*; a run that has begun needs the same images"
    with pytest.raises(ValueError, match=message):
        flcl.run(run, workdir)
    assert json.loads((workdir / "stream.json").read_text()) == stored


def test_images_of_a_run_are_decided_by_its_saves(tmp_path):
    assert workdirs.begun(tmp_path) is None
    (tmp_path / "checkpoints" / "tasks" / "1").mkdir(parents=True)
    assert workdirs.begun(tmp_path) is None
    for content, expected in (
        ("{}", Begun()),
        ('{"skipped": {"count": 1, "files": ["a.png"]}}', Begun(("a.png",))),
        ('{"split": "by picture"}', Begun((), "by picture")),
        ('{"split": 3}', None),
        ('{"skipped": ["a.png"]}', None),
        ('{"skipped": {"files": [1]}}', None),
        ("[]", None),
        ("{", None),
    ):
        (tmp_path / "stream.json").write_text(content)
        assert workdirs.begun(tmp_path) == expected


def by_path(root, fraction) -> dict[str, list[str]]:
    """The hash split of folders with domains in format 2, written down from its rule."""
    sides = {"train": [], "test": []}
    for leaf in sorted(path for path in root.glob("*/*") if path.is_dir()):
        names = sorted(path.relative_to(root).as_posix() for path in leaf.iterdir())
        ranked = sorted(names, key=hashed_place)
        count = sum(hashed_place(name) < fraction for name in names)
        tested = ranked[: min(max(count, 1), len(names) - 1)]
        sides["test"] += [name for name in names if name in tested]
        sides["train"] += [name for name in names if name not in tested]
    return sides


def test_a_run_of_an_older_version_keeps_its_split_of_domains(tmp_path):
    """Until format 3 the hash of the whole path chose the side of every file."""
    root, workdir = tmp_path / "styles", tmp_path / "run"
    random = np.random.default_rng(1)
    for domain in ("ink", "oil"):
        for label in range(6):
            folder = root / domain / f"class_{label}"
            folder.mkdir(parents=True)
            for number in range(5):
                pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    run = tiny.classifier_of(
        root,
        "class_mean",
        data__source=f"folder:{root}",
        data__memory_gib=0.0,
        data__test_fraction=0.4,
    )
    expected = by_path(root, 0.4)
    old, _ = prepare(run, begun=Begun())
    new, _ = prepare(run)
    for name, split in (("train", old.data.source.train), ("test", old.data.source.test)):
        assert list(split.images.names) == expected[name]
    assert set(new.data.source.test.images.names) != set(expected["test"])
    assert "split" not in old.data.to_dict() and new.data.to_dict()["split"] == "by picture"

    # As that version left it after its first task.
    (workdir / "checkpoints" / "tasks").mkdir(parents=True)
    files.write_json(workdir / "stream.json", old.data.to_dict())
    stored = {"format": 2, **bridge.as_dict(run)}
    stored["data"] = {k: v for k, v in stored["data"].items() if k not in ("verify", "bad_images")}
    files.write_json(workdir / "config.json", stored)
    (workdir / "checkpoints" / "tasks" / "1").mkdir()
    begun = workdirs.begun(workdir)
    assert (begun.skipped, begun.split_rule) == ((), "")
    again, _ = prepare(run, begun=workdirs.begun(workdir))
    with workdirs.claimed(workdir, run, again.data.to_dict(), Seals(workdir)) as (_, notes):
        assert notes == []
    assert json.loads((workdir / "stream.json").read_text()) == old.data.to_dict()
    with pytest.raises(ValueError, match="trained on other data or tasks .*split"):
        workdirs.check_stream(workdir, new.data.to_dict(), Seals(workdir))


def test_processes_must_leave_the_same_images_out(pictures, monkeypatch):
    run = run_of(pictures, data__bad_images="skip")
    for first, where in (([], "process 0"), (["a.png", "train/class_4/1.png"], "the first proc")):
        monkeypatch.setattr(hosts, "from_main", lambda value, first=first: [first, value[1]])
        with pytest.raises(ValueError, match=f"png is unreadable in {where}.* and not in others"):
            prepare(run)


def test_processes_must_have_the_same_images(pictures, monkeypatch):
    other = {"class_names": ["another"], "train_images": [3]}
    monkeypatch.setattr(hosts, "from_main", lambda value: [value[0], {**value[1], **other}])
    message = "class_names, train_images of process 0 are not those of the first process; give all"
    with pytest.raises(ValueError, match=message):
        prepare(run_of(pictures, data__bad_images="skip"))
