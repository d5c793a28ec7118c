"""Runs that earlier versions left behind open, sample, classify and continue: `frozen/format_N`.

Both stopped in the second of three tasks, after four steps. `expected.npz` holds what the version
that made them answered. Another processor rounds otherwise: the answers are nearly the same. All
continue up to their first step, with what they stored; the newest go on to their end.
"""

import json
import tarfile
from pathlib import Path

import jax
import killed as moments
import numpy as np
import pytest

import flcl
from flcl.runs.saved import workdir
from flcl.settings import bridge, formats
from flcl.storage.seals import Seals
from flcl.training.loop import TaskTraining

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


def continued(workdir: Path, capsys, to_the_end: bool) -> None:
    """Continues a run with the settings that it stored, up to its first step or to its end."""
    run = bridge.from_dict(formats.read(workdir))
    if to_the_end:
        results = flcl.run(run, workdir)
        assert results["complete"] is True and len(results["matrix"]) == 3
    else:
        stopped_before_a_step(run, workdir)
    assert "continuing task 2 at step 4" in capsys.readouterr().out
    stored = json.loads((workdir / "config.json").read_text())
    assert stored == json.loads(json.dumps(formats.to_store(run)))


def stopped_before_a_step(run, workdir: Path) -> None:
    """Restores the state inside a task as it would train on."""

    def training(_self, _phase, state, _frozen, batches):
        assert int(state.step) == 4 and len(next(iter(batches))) > 0
        kept = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
        assert any(np.asarray(leaf).any() for leaf in kept)  # the optimiser's moments
        raise moments.Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(moments.Killed):
        patch.setattr(TaskTraining, "run", training)
        flcl.run(run, workdir)


def test_every_older_format_has_frozen_runs():
    assert NUMBERS == list(range(1, formats.FORMAT))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_frozen_generator_samples_and_continues(number, tmp_path, capsys):
    workdir, expected = unpacked(number, "funlora", tmp_path)
    opened = flcl.open_run(workdir)
    assert opened.learned == (1,)
    images = opened.sample([0, 3], 3, task=1).images
    assert images.shape == expected["images"].shape
    assert np.abs(images.astype(int) - expected["images"]).max() <= 1

    to_the_end = number == NUMBERS[-1]
    continued(workdir, capsys, to_the_end)
    opened = flcl.open_run(workdir)
    assert opened.learned == ((1, 2, 3) if to_the_end else (1,))
    for task in {1, opened.learned[-1]}:
        np.testing.assert_array_equal(opened.sample([0, 3], 3, task=task).images, images)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_frozen_classifier_classifies_and_continues(number, tmp_path, capsys):
    workdir, expected = unpacked(number, "fmlora", tmp_path)
    kept = (workdir / "features" / "group_01.npz").read_bytes()
    opened = flcl.open_run(workdir)
    assert opened.learned == (1,)
    before = {}
    for head in ("linear", "class_mean"):
        before[head] = opened.classify(expected["pixels"], head=head).scores
        assert np.isfinite(before[head][:, :4]).all()
        np.testing.assert_allclose(before[head], expected[head], atol=1e-4)

    to_the_end = number == NUMBERS[-1]
    continued(workdir, capsys, to_the_end)
    assert (workdir / "features" / "group_01.npz").read_bytes() == kept
    opened = flcl.open_run(workdir)
    assert opened.learned == ((1, 2, 3) if to_the_end else (1,))
    for head, scores in before.items():
        again = opened.classify(expected["pixels"], head=head, after=1).scores
        np.testing.assert_array_equal(again, scores)
        now = opened.classify(expected["pixels"], head=head).scores
        assert np.isfinite(now if to_the_end else now[:, :4]).all()


def test_a_run_of_another_method_is_named(tmp_path):
    """Also a method without the groups of keys that the stored one has."""
    (tmp_path / "checkpoints" / "tasks" / "1").mkdir(parents=True)
    stored = formats.to_store(flcl.load_config("fmlora_digits"))
    (tmp_path / "config.json").write_text(json.dumps(stored))
    for name in ("fmlora_digits:baseline=frozen", "funlora_digits"):
        with pytest.raises(ValueError, match=r"another config \(method: 'fmlora' -> "):
            workdir.check_config(tmp_path, flcl.load_config(name), Seals(tmp_path, writes=False))
