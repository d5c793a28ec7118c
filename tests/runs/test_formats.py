"""Runs that earlier versions left behind open, sample, classify and go on: `frozen/format_N`.

Both stopped in the second of three tasks, after four steps. `expected.npz` holds what the version
that made them answered. Another processor rounds otherwise: the answers are nearly the same.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import flcl
from flcl.settings import bridge, formats

FROZEN = Path(__file__).parent / "frozen"
NUMBERS = sorted(int(path.name.removeprefix("format_")) for path in FROZEN.glob("format_*"))


def unpacked(number: int, kind: str, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A copy of a frozen run, and what it is expected to answer."""
    with tarfile.open(FROZEN / f"format_{number}" / f"{kind}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    expected = folder / kind / "expected.npz"
    with np.load(expected) as arrays:
        answers = dict(arrays)
    expected.unlink()
    return folder / kind, answers


def resumed(workdir: Path, capsys) -> None:
    """Completes a run with the settings that it stored."""
    run = bridge.from_dict(formats.read(workdir))
    results = flcl.run(run, workdir)
    assert "continuing task 2 at step 4" in capsys.readouterr().out
    assert results["complete"] is True and len(results["matrix"]) == 3
    stored = json.loads((workdir / "config.json").read_text())
    assert stored == json.loads(json.dumps(formats.to_store(run)))


def test_every_older_format_has_frozen_runs():
    assert NUMBERS == list(range(1, formats.FORMAT))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_frozen_generator_samples_and_goes_on(number, tmp_path, capsys):
    workdir, expected = unpacked(number, "funlora", tmp_path)
    opened = flcl.open_run(workdir)
    assert opened.learned == (1,)
    images = opened.sample([0, 3], 3, task=1).images
    assert images.shape == expected["images"].shape
    assert np.abs(images.astype(int) - expected["images"]).max() <= 1

    resumed(workdir, capsys)
    opened = flcl.open_run(workdir)
    assert opened.learned == (1, 2, 3)
    for task in (1, 3):
        np.testing.assert_array_equal(opened.sample([0, 3], 3, task=task).images, images)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_frozen_classifier_classifies_and_goes_on(number, tmp_path, capsys):
    workdir, expected = unpacked(number, "fmlora", tmp_path)
    kept = (workdir / "features" / "group_01.npz").read_bytes()
    opened = flcl.open_run(workdir)
    assert opened.learned == (1,)
    before = {}
    for head in ("linear", "class_mean"):
        before[head] = opened.classify(expected["pixels"], head=head).scores
        assert np.isfinite(before[head][:, :4]).all()
        np.testing.assert_allclose(before[head], expected[head], atol=1e-4)

    resumed(workdir, capsys)
    assert (workdir / "features" / "group_01.npz").read_bytes() == kept
    opened = flcl.open_run(workdir)
    assert opened.learned == (1, 2, 3)
    for head, scores in before.items():
        again = opened.classify(expected["pixels"], head=head, after=1).scores
        np.testing.assert_array_equal(again, scores)
        assert np.isfinite(opened.classify(expected["pixels"], head=head).scores).all()
