"""Runs that keep the outputs of the blocks below all that trains are the runs that do not."""

import json

import jax
import killed
import numpy as np
import pytest
import tiny

import flcl
from flcl.data.selection import Selection
from flcl.evaluate.features import Inference
from flcl.evaluate.lower import Lower
from flcl.methods.vit_classifier import ViTClassifier
from flcl.runs.memory import empty_memory
from flcl.runs.setup import prepare

# The first block of two never trains. Every pass over images that FM-LoRA can have is there: the
# survey, the steps, the statistics, the drift and the tests.
ABOVE = {
    "lora__blocks": "1",
    "train__min_crop": 1.0,
    "prompt__tokens": 0,
    "rank__selector": "energy:0.99",
    "drift__correction": "linear",
    "runtime__save_every": 2,
}
BELOW = (5, 64)  # the output of a block: class token and four patches, with 64 channels


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """Workdir of a finished FM-LoRA run without kept outputs."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    flcl.run(tiny.classifier_of(data, **ABOVE), workdir)
    return workdir


def test_a_stopped_run_that_keeps_outputs_ends_as_the_plain_run(plain, data, tmp_path, monkeypatch):
    run, workdir = tiny.classifier_of(data, model__keep_lower=True, **ABOVE), tmp_path / "run"
    read, real = set(), ViTClassifier.encode

    def noted(self, images, *args, **kwargs):
        read.add(images.shape[1:])
        return real(self, images, *args, **kwargs)

    monkeypatch.setattr(ViTClassifier, "encode", noted)
    with pytest.MonkeyPatch.context() as patch:
        killed.install("before the statistics of task 2", workdir, patch, kill=killed.end)
        with pytest.raises(killed.Killed):
            flcl.run(run, workdir)
    flcl.run(run, workdir)
    assert read == {BELOW}  # no program but that of the first block has read pixels
    kept, without = results(workdir), results(plain)
    for name in ("matrix", "heads", "steps_per_task"):
        assert kept[name] == without[name], name
    ranks, others = ([entry["rank"] for entry in r["rank_selection"]] for r in (kept, without))
    assert ranks == others
    # Two programs in the place of one may round the last bits of a gradient otherwise.
    memories = [tiny.memory_of(folder) for folder in (workdir, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), *memories)
    # An opened run reads images, and both runs answer alike.
    with np.load(data) as arrays:
        images = arrays["test_images"]
    features = [flcl.open_run(folder).features(images) for folder in (workdir, plain)]
    np.testing.assert_allclose(*features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("features", ["cls", "cls+mean", "layers:2"])
def test_every_image_is_computed_once_and_has_the_same_features(data, features):
    run = tiny.classifier_of(data, "frozen", model__keep_lower=True, model__features=features)
    setup, _ = prepare(run)
    memory, split, computed = empty_memory(setup), setup.data.source.train, []

    def progress(what, total):
        computed.append(total)
        return lambda done: None

    lower = Lower(setup.method, setup.mesh, setup.data, progress)
    some = Selection(split.images, np.array([3, 5, 3, 40]), np.array([0, 0, 0, 1], np.int32))
    more = Selection(split.images, np.arange(2, 42))
    first, second = lower.of(memory, some), lower.of(memory, more)
    assert computed == [3, 37]  # three images, then those of forty that are new
    np.testing.assert_array_equal(first[np.arange(4)], second[np.array([1, 3, 1, 38])])
    assert first.labels is some.labels and first[np.array([0])].shape == (1, *BELOW)
    kept = Inference(setup.method, setup.mesh, lower).features(memory, more)
    np.testing.assert_array_equal(kept, Inference(setup.method, setup.mesh).features(memory, more))
    others = Selection(split.images.copy(), np.arange(4))
    assert lower.of(memory, others) is others  # such as samples of a generator


def test_outputs_that_need_more_than_memory_gib_are_refused_before_the_run(data, tmp_path):
    changes = {"model__keep_lower": True, "data__memory_gib": 2e-4}
    line = (
        r"^model.keep_lower=True: the outputs of block 1 for 192 images need 0.0 GiB, and data.mem"
    )
    with pytest.raises(ValueError, match=line):
        flcl.run(tiny.classifier_of(data, "frozen", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
