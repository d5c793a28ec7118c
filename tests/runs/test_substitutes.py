"""Samples and unlabelled images in the place of old images: by name, before training, unread."""

import dataclasses
import json
import shutil

import jax
import killed as moments
import numpy as np
import pytest
import tiny
from PIL import Image

import flcl
from flcl.data import images as images_lib
from flcl.data.selection import joined
from flcl.evaluate.features import Inference, silent
from flcl.evaluate.sampling import ClassSampler
from flcl.rng import stream_key
from flcl.runs import experiment, setup
from flcl.runs.later import sources
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.statistics import substitutes
from flcl.runs.statistics.gathering import Statistics

SAMPLES, PICTURES = 8, 5


@pytest.fixture(scope="module")
def generator(data, tmp_path_factory):
    """A FunLoRA run that knows the classes under other ids, and learned them in another order."""
    folder = tmp_path_factory.mktemp("generator")
    with np.load(data) as arrays:
        values = dict(arrays)
    count = len(values["class_names"])
    for part in ("train_labels", "test_labels"):
        values[part] = (values[part] + 2) % count
    values["class_names"] = np.roll(values["class_names"], 2)
    np.savez(folder / "rolled.npz", **values)
    run = tiny.settings_of(folder / "rolled.npz", stream__class_order="4,2,5,3,0,1")
    flcl.run(run, folder / "run")
    return folder / "run"


def test_another_class_order_trains_other_classes_first(generator):
    """Its first task are the classes 4 and 2 of the rolled data: cat and ant."""
    results = json.loads((generator / "results.json").read_text())
    assert results["class_names"][:2] == ["cat", "ant"]
    opened = flcl.open_run(generator)
    assert opened.sample(["cat"], 1, task=1).classes == (4,)
    with pytest.raises(ValueError, match=r"class 0 \(eel\) is not learned after task 1"):
        opened.sample([0], 1, task=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures of another size, without class folders."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        Image.effect_noise((20, 12), 40 + number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(data, generator, pictures):
    return tiny.classifier_of(
        data,
        memory__generator=str(generator),
        memory__per_class=SAMPLES,
        drift__images=f"folder:{pictures}",
        drift__diagnose=True,
        runtime__save_every=2,
    )


class Watched:
    """Training images that note, for the task that trains, the positions that are read."""

    def __init__(self, images, reads, training):
        self.images, self.reads, self.training = images, reads, training
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.training:
            self.reads.setdefault(self.training[-1], []).extend(np.atleast_1d(index).tolist())
        return self.images[index]


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """Workdir of a complete run, and the labels of the images that each task's training read."""
    workdir, reads, training, labels = tmp_path_factory.mktemp("run") / "run", {}, [], []
    load, train = sources.load_source, experiment.Experiment.train

    def watched(*args, **options):
        source = load(*args, **options)
        labels.append(source.train.labels)
        images = Watched(source.train.images, reads, training)
        return dataclasses.replace(source, train=dataclasses.replace(source.train, images=images))

    def noted(self, memory, task):
        training.append(task.index)
        after = train(self, memory, task)
        training.clear()
        return after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_source", watched)
        patch.setattr(experiment.Experiment, "train", noted)
        flcl.run(run, workdir)
    return workdir, {task: {*labels[0][rows].tolist()} for task, rows in reads.items()}


def test_no_real_image_of_an_old_task_is_read(finished):
    assert finished[1] == {1: {0, 1}, 2: {2, 3}, 3: {4, 5}}


def memories(workdir, prepared):
    """The memory after each task."""
    memory, after = empty_memory(prepared), []
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        for task in prepared.data.stream.tasks:
            memory = restore_task(prepared, checkpoints, memory, task)
            after.append(memory)
    return after


def prepared_for(run, **memory):
    """Setup and substitutes of a run with other keys of `memory`."""
    run = dataclasses.replace(run, memory=dataclasses.replace(run.memory, **memory))
    if run.makes_anew:  # then there is no map that could use images without labels
        run = dataclasses.replace(run, drift=dataclasses.replace(run.drift, images=""))
    return substitutes.prepare(setup.prepare(run)[0], silent)


def test_samples_are_those_of_the_name_and_of_no_position(run, generator):
    prepared, old = prepared_for(run)
    task = prepared.data.stream.tasks[2]
    samples, opened = old.samples(task), flcl.open_run(generator)
    assert samples.labels.tolist() == np.repeat([0, 1, 2, 3], SAMPLES).tolist()
    sampler = ClassSampler(opened._setup.method, opened.settings.sample, opened._mesh)
    key = stream_key(run.seed, "samples of old classes", 3)
    for label, name in enumerate(["ant", "bee", "cat", "dog"]):
        position = opened.class_names.index(name)
        place = list(opened.stream.class_order).index(position)
        with jax.set_mesh(opened._mesh):
            small = sampler.one_class(opened._memory(3), key, place, SAMPLES)[0]
        assert place != label
        shown = samples[np.flatnonzero(samples.labels == label)]
        expected = [images_lib.convert(image, "", run.data) for image in small]
        np.testing.assert_array_equal(shown, np.stack(expected))
    assert shown.shape == (SAMPLES, 8, 8, 3)
    # Another task draws others, and the first task has no old class.
    second = old.samples(prepared.data.stream.tasks[1])
    assert not np.array_equal(second[np.arange(SAMPLES)], samples[np.arange(SAMPLES)])
    assert old.samples(prepared.data.stream.tasks[0]) is None


def test_the_generator_is_used_as_it_was_when_it_knew_the_old_classes(generator, monkeypatch):
    opened, used = GeneratorOnDisk(generator), []
    monkeypatch.setattr(opened, "_memory", lambda last: used.append(last) or opened._restore(last))
    assert [len(each) for each in opened.draw(["ant", "dog"], 3, jax.random.key(0))] == [3, 3]
    assert {*used} == {2}  # ant came in its first task, dog in its second one


def test_the_map_sees_images_samples_and_pictures(run, finished, monkeypatch):
    prepared, old = prepared_for(run)
    after, seen = memories(finished[0], prepared), []
    inference = Inference(prepared.method, prepared.mesh)
    monkeypatch.setattr(
        prepared.method, "calibrate", lambda memory, task, *given: seen.append(given)
    )
    with jax.set_mesh(prepared.mesh):
        Statistics(prepared, inference, old, silent).add(
            after[0], after[1], prepared.data.stream.tasks[1]
        )
    features, labels, moved, _, anew = seen[0]
    assert anew is None and len(labels) == 48
    assert len(moved.before) == len(moved.after) == 48 + 2 * SAMPLES + PICTURES
    np.testing.assert_array_equal(moved.after[:48], features)
    with jax.set_mesh(prepared.mesh):
        shown = inference.features(after[0], old.unlabelled)
    np.testing.assert_allclose(moved.before[-PICTURES:], shown, rtol=1e-5, atol=1e-5)


def test_statistics_of_old_classes_are_made_anew_from_samples(run, finished):
    prepared, old = prepared_for(run, use="statistics")
    after, task = memories(finished[0], prepared), prepared.data.stream.tasks[2]
    inference = Inference(prepared.method, prepared.mesh)
    with jax.set_mesh(prepared.mesh):
        made = Statistics(prepared, inference, old, silent).add(after[1], after[2], task)
        drawn = inference.features(after[2], old.samples(task))
        real = inference.features(after[2], joined(prepared.data.train(task)))
    means = made["means"]
    assert means["count"][:6].tolist() == [SAMPLES] * 4 + [24, 24]
    sums = np.concatenate([drawn.reshape(4, SAMPLES, -1), real.reshape(2, 24, -1)], axis=None)
    assert sums.size == (4 * SAMPLES + 48) * drawn.shape[1]
    np.testing.assert_allclose(
        means["sum"][:6],
        np.concatenate([drawn.reshape(4, SAMPLES, -1).sum(1), real.reshape(2, 24, -1).sum(1)]),
        rtol=1e-4,
        atol=1e-3,
    )
    # All of it is stored with the task, because all of it has changed.
    added = prepared.method.added(made, task)
    assert added["means"]["sum"].shape == means["sum"].shape


def test_what_the_results_say(finished, generator):
    results = json.loads((finished[0] / "results.json").read_text())
    old = results["old_classes"]
    assert old["statistics"]["per_class"] == 2 * 4 * (64 + 1)  # a mean and a column of a layer
    assert 0 <= old["statistics"]["once"] - 4 * 64**2 < 200  # a scatter; numbers of held-out images
    assert old["real_images"] == {"once": 0, "per_class": 100 * 8 * 8 * 3}
    assert old["samples_per_class"] == SAMPLES and old["unlabelled_images"] == PICTURES
    sizes = json.loads((generator / "results.json").read_text())["parameters"]
    assert old["generator"] == {
        "once": 4 * sizes["trunk_parameters"],
        "per_class": 4 * sizes["parameters_per_class"],
    }


def test_the_diagnosis_compares_stale_and_true_statistics(finished, data):
    results = json.loads((finished[0] / "results.json").read_text())
    rows = results["rows"]
    assert [*rows[0]["statistics"]["true"]] == ["class_mean", "lda", "ridge"]
    for head in ("class_mean", "lda", "ridge"):  # nothing can have moved before the second task
        assert rows[0]["statistics"]["stale"][head] == rows[0]["statistics"]["true"][head]
        assert rows[0]["statistics"]["true"][head] == rows[0][head]
    opened = flcl.open_run(finished[0])
    with np.load(data) as arrays:
        shown = {part: opened.features(arrays[f"{part}_images"]) for part in ("train", "test")}
        labels = {part: arrays[f"{part}_labels"] for part in ("train", "test")}
    means = np.stack([shown["train"][labels["train"] == c].mean(axis=0) for c in range(6)])
    cosines = shown["test"] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    right = cosines.argmax(axis=1) == labels["test"]
    expected = [right[(labels["test"] // 2) == group].mean() for group in range(3)]
    assert rows[2]["statistics"]["true"]["class_mean"] == pytest.approx(expected)


def test_killed_and_continued_it_ends_with_the_same_bytes(run, finished, tmp_path):
    workdir = tmp_path / "run"
    for point in ("in the short run before task 2", "while testing task 2"):
        with pytest.MonkeyPatch.context() as patch:
            moments.install(point, workdir, patch, kill=moments.end)
            with pytest.raises(moments.Killed):
                flcl.run(run, workdir)
    flcl.run(run, workdir)
    assert (workdir / "config.json").read_bytes() == (finished[0] / "config.json").read_bytes()
    results = [json.loads((each / "results.json").read_text()) for each in (workdir, finished[0])]
    # The images of the other run are counted, and have no digest.
    assert all(task.pop("images") for task in results[0]["diagnosis"])
    assert results[0] == results[1]
    folders = [folder / "checkpoints" for folder in (workdir, finished[0])]
    with Checkpoints(folders[0], True) as these, Checkpoints(folders[1], True) as those:
        for task in (1, 2, 3):
            assert these.digest_of(task) == those.digest_of(task)


def test_what_cannot_stand_for_old_images_is_refused_before_training(
    run, generator, finished, data, tmp_path
):
    def refused(message, **keys):
        with pytest.raises(ValueError, match=message) as caught:
            prepared_for(run, **keys)
        assert "\n" not in str(caught.value)

    refused("memory.generator: workdir .* holds no run", generator=str(tmp_path / "none"))
    refused("a run of fmlora; a run of funlora is needed", generator=str(finished[0]))
    refused("memory.sha256='00': memory.generator=.* has the SHA-256", sha256="00")
    half = tmp_path / "half"
    shutil.copytree(generator, half)
    for task in (2, 3):
        shutil.rmtree(half / "checkpoints" / "tasks" / str(task))
    refused("knows no 'bee', 'dog' after its 1 finished tasks", generator=str(half))
    other = dataclasses.replace(run, data=dataclasses.replace(run.data, resize=False, image_size=4))
    with pytest.raises(ValueError, match="samples have 8 pixels, data.image_size=4"):
        substitutes._check_images(other, flcl.open_run(generator).settings)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("folder:{}/none", "drift.images: folder:.*none: no such folder"),
        ("folder:{}/empty", "drift.images: folder:.*empty: there are no pictures in it"),
        ("folder:{}/torn", "drift.images: folder:.*torn: 1 of 1 images cannot be used"),
        ("digit", "drift.images='digit': accepted are digits"),
        ("npz:{}/none.npz", "drift.images: npz:.*none.npz"),
    ],
)
def test_a_bad_place_of_unlabelled_images(run, spec, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.png").write_bytes(b"no picture")
    drift = dataclasses.replace(run.drift, images=spec.format(tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        substitutes.prepare(setup.prepare(dataclasses.replace(run, drift=drift))[0], silent)
    assert "\n" not in str(caught.value)


def test_any_source_gives_its_training_images_without_labels(run, data):
    drift = dataclasses.replace(run.drift, images=f"npz:{data}")
    changed = dataclasses.replace(run, drift=drift)
    prepared, old = substitutes.prepare(setup.prepare(changed)[0], silent)
    assert len(old.unlabelled) == prepared.substitutes["unlabelled_images"] == 6 * 24
    assert old.unlabelled.labels is None and old.unlabelled[[0]].shape == (1, 8, 8, 3)


def test_other_images_without_labels_are_refused(run, finished, pictures, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    stored, picture = config["drift"]["sha256"], pictures / "3.png"
    assert len(stored) == 64
    resolved = dataclasses.replace(run, drift=dataclasses.replace(run.drift, sha256=stored))
    before = picture.read_bytes()
    Image.effect_noise((20, 12), 99).save(picture)  # the same number of images
    with pytest.raises(ValueError, match=f"drift.sha256: '{stored}' -> '[0-9a-f]{{64}}'"):
        flcl.run(run, workdir)
    line = f"drift.sha256='{stored}': drift.images='folder:.*' has the SHA-256 [0-9a-f]{{64}}; br"
    with pytest.raises(ValueError, match=line) as caught:
        flcl.run(resolved, workdir)
    assert "\n" not in str(caught.value)
    picture.write_bytes(before)
    results = (workdir / "results.json").read_bytes()
    # A run of an older version knows no SHA-256, and goes on with one.
    del config["drift"]["sha256"]
    (workdir / "config.json").write_text(json.dumps({**config, "format": 5}))
    (workdir / "digests.json").unlink()
    flcl.run(run, workdir)
    assert (workdir / "results.json").read_bytes() == results
    assert json.loads((workdir / "config.json").read_text())["drift"]["sha256"] == stored


def test_a_digest_needs_images(run):
    drift = dataclasses.replace(run.drift, images="", sha256="00")
    with pytest.raises(ValueError, match="drift.sha256='00': drift.images is empty"):
        dataclasses.replace(run, drift=drift).check()
