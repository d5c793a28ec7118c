"""A whole task sequence of classifiers: what it proves, what it leaves behind, how it is used."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny
from jax import export
from PIL import Image
from safetensors.numpy import load_file

import flcl
from flcl.cost import hlo
from flcl.data.sequence.stream import CLASSES
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.evaluate import classifiers as classifying
from flcl.methods.fmlora import FMLoRA
from flcl.report import answers
from flcl.runs.memory import empty_memory, restore_task
from flcl.runs.results import ClassifierResults, from_json, to_json
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import prepare
from flcl.stopping import StoppedError
from flcl.training import complexity
from flcl.training.loop import TaskTraining
from flcl.training.step import Phase


@pytest.fixture(scope="module")
def learned(data, tmp_path_factory):
    """Workdir of a complete FM-LoRA run of three tasks."""
    workdir = tmp_path_factory.mktemp("runs") / "fmlora"
    results = flcl.run(tiny.classifier_of(data), workdir)
    assert json.loads(json.dumps(results)) == json.loads((workdir / "results.json").read_text())
    return workdir


def memories(workdir, run):
    """The memory after each task of a finished run."""
    setup = prepare(run)[0]
    memory, found = empty_memory(setup), []
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        for task in setup.data.stream.tasks:
            memory = restore_task(setup, checkpoints, memory, task)
            found.append(jax.tree.map(np.asarray, memory))
    return found


def test_results(learned):
    results = json.loads((learned / "results.json").read_text())
    assert results["complete"] and results["kind"] == "classifier" and results["head"] == "linear"
    assert [sum(v is not None for v in row) for row in results["matrix"]] == [1, 2, 3]
    assert set(results["heads"]) == {"linear", "class_mean", "lda", "ridge"}
    for head in results["heads"].values():
        assert [sum(v is not None for v in row) for row in head["matrix"]] == [1, 2, 3]
    assert results["heads"]["lda"]["summary"]["last_accuracy"] > 0.9
    assert results["summary"]["last_accuracy"] > 1 / 3  # chance is one sixth
    assert results["steps_per_task"] == [6, 6, 6]
    drift = np.array(results["drift"]["relative"], float)
    assert np.all(np.diag(drift) == 0) and np.all(drift[np.tril_indices(3, -1)] > 0)
    first, *later = results["rank_selection"]
    assert first["rank"] == 4 and first["complexity"] > 0 and first["probabilities"] is None
    for entry in later:
        assert entry["rank"] in (1, 2, 4) and entry["complexity"] > 0
        assert sum(entry["probabilities"]) == pytest.approx(1.0, abs=1e-5)
    assert results["weights"]["normalize"] == "half"


def test_results_follow_their_schema_byte_for_byte(learned):
    text = (learned / "results.json").read_text()
    typed = from_json(json.loads(text))
    assert isinstance(typed, ClassifierResults)
    assert json.dumps(to_json(typed), indent=2, sort_keys=True) + "\n" == text


def test_the_answers_of_the_last_task_are_kept_and_agree_with_the_matrix(learned):
    kept = answers.read(learned, 6)
    results = from_json(json.loads((learned / "results.json").read_text()))
    assert kept.task == 3 and kept.confusion.sum() == sum(results.test_counts)
    for group, accuracy in zip(results.tasks, results.matrix[-1], strict=True):
        rows = kept.confusion[list(group)]
        right = sum(kept.confusion[label, label] for label in group)
        assert right / rows.sum() == accuracy
    wrong = kept.confusion.sum() - np.trace(kept.confusion)
    assert 0 < len(kept.images) == len(kept.labels) <= wrong and kept.images.shape[1:] == (8, 8, 3)
    assert all(kept.confusion[kept.labels, kept.answers] > 0)
    assert "wrong answers after task 3" in (learned / "report.html").read_text()


def test_what_a_run_leaves_behind(learned):
    names = {path.name for path in learned.iterdir()}
    assert names >= {"config.json", "results.json", "features", "report.html", "plots"}
    assert not list(learned.glob("samples/*.png"))
    assert {p.name for p in (learned / "plots").iterdir()} >= {
        "accuracy.png", "drift.png", "matrix.png", "rank_selection.png",
    }  # fmt: skip
    timing = json.loads((learned / "timing.json").read_text())["tasks"]
    assert timing["2"]["bytes_on_disk"] < timing["1"]["bytes_on_disk"] / 10


def test_replaced_features_and_answers_change_no_result(learned, data, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(learned, copy)
    shutil.rmtree(copy / "checkpoints" / "tasks" / "3")
    features, answers = copy / "features", copy / "evaluations" / "answers.npz"
    with np.load(features / "group_01.npz") as kept:
        np.savez(features / "group_01.npz", features=1.5 * kept["features"])
    (features / "group_02.npz").unlink()

    def run_again() -> str:
        flcl.run(tiny.classifier_of(data), copy)
        for name in ("results.json", "features/group_01.npz", "features/group_02.npz"):
            assert (copy / name).read_bytes() == (learned / name).read_bytes(), name
        expected = learned / "evaluations" / "answers.npz"
        assert answers.read_bytes() == expected.read_bytes()
        return capsys.readouterr().out

    said = run_again()
    assert "group_01.npz has changed since the run wrote it; it is made again" in said
    assert "group_02.npz is missing; it is made again" in said
    answers.write_bytes(answers.read_bytes()[:100])
    assert "pictures of task 3 are missing or damaged: made again" in run_again()


def test_trunk_bases_and_old_rows_keep_their_bits(learned, data):
    after = memories(learned, tiny.classifier_of(data))
    for task in (1, 2):
        for name in ("trunk", "bases"):
            jax.tree.map(np.testing.assert_array_equal, after[0][name], after[task][name])
        old, new = after[task - 1], after[task]
        rows = slice(0, 2 * task)
        np.testing.assert_array_equal(
            old["head"]["kernel"][:, rows], new["head"]["kernel"][:, rows]
        )
        np.testing.assert_array_equal(old["means"]["count"][rows], new["means"]["count"][rows])
        assert new["seen"].tolist() == [i < 2 * task + 2 for i in range(CLASSES)]


def test_one_trace_per_phase_and_none_more_for_another_rank(data, tmp_path, monkeypatch):
    traced, real = [], FMLoRA.loss

    def counted(self, phase, *args):
        traced.append(phase)
        return real(self, phase, *args)

    monkeypatch.setattr(FMLoRA, "loss", counted)
    chosen = iter([0.5, 0.1, 2.0, 0.5])
    monkeypatch.setattr(complexity, "_held_out", lambda *_: next(chosen))
    run = tiny.classifier_of(data, stream__tasks="2,1,2,1", train__epochs=1.0)
    results = flcl.run(run, tmp_path / "run")
    assert traced == [1, 2]
    ranks = [entry["rank"] for entry in results["rank_selection"]]
    assert ranks[0] == 4 and len(set(ranks[1:])) > 1


def test_a_joint_run_has_one_row(data, tmp_path):
    results = flcl.run(tiny.classifier_of(data, stream__joint=True), tmp_path / "run")
    assert results["complete"] and None not in results["matrix"][0]
    assert len(results["matrix"]) == 1 and len(results["matrix"][0]) == 3


# The last one reads images before and after a task; `test_kill_heads.py` has one that is aligned.
METHODS = ("linear_probe", "vit_finetune", "sd_lora", "inflora")


@pytest.mark.parametrize("method", METHODS)
def test_peers_run_in_the_same_harness(data, tmp_path, method):
    few = {"lora__blocks": "0"} if "lora" in method else {}
    run = tiny.classifier_of(data, method, stream__tasks="2", train__epochs=1.0, **few)
    results = flcl.run(run, tmp_path / "run")
    assert results["complete"] and results["rank_selection"] == []
    drift = np.array(results["drift"]["relative"], float)[1, 0]
    assert (drift < 1e-6) == (method == "linear_probe")
    opened = flcl.open_run(tmp_path / "run")
    assert opened.evaluate_on()["top1"] == pytest.approx(results["summary"]["last_accuracy"])
    memory = memories(tmp_path / "run", run)[1]
    if method == "inflora":
        assert np.trace(memory["occupied"]["block_00"]["q"]) >= 1 and memory["finished"] == 2


def test_domains_come_one_after_the_other(tmp_path):
    """With all that FM-LoRA reads from the images of a task before it trains; stopped inside it."""
    data = tiny.write_domains(tmp_path / "domains.npz")
    run = tiny.classifier_of(
        data,
        stream__scenario="dil",
        stream__tasks="domains",
        stream__domain_order="ink,oil",
        train__first_epochs=1.0,
        lora__blocks="0",
        lora__bases="gradient",
        lora__capacity=6,
        lora__combine="scaled",
        rank__selector="energy:0.3",
        prompt__init="mean",
    )
    real = TaskTraining.run

    def stopped(training, *arguments):
        stop = {"task 2": lambda done: done == 2}.get(training.name, training.stop)
        return real(dataclasses.replace(training, stop=stop), *arguments)

    stops = pytest.raises(StoppedError, match="step 2 of task 2")
    with pytest.MonkeyPatch.context() as patch, stops:
        patch.setattr(TaskTraining, "run", stopped)
        flcl.run(run, tmp_path / "run")
    results = flcl.run(run, tmp_path / "run")
    assert results["task_names"] == ["ink", "oil"] and results["tasks"] == [list(range(6))] * 2
    assert results["test_counts"] == [48, 24]
    assert results["steps_per_task"] == [9, 9]
    _, later = results["diagnosis"]
    assert 0 < later["coverage"] < 1 and 4 <= later["columns"] <= 6
    assert later["rank_selection"]["rank"] in (1, 2)  # few enough to be stored as factors
    assert results["parameters"]["bytes_per_task"][1] == later["bytes"]
    counts = memories(tmp_path / "run", run)[1]["means"]["count"]
    assert counts[:2, :6].tolist() == [[24] * 6, [12] * 6] and counts.sum() == 6 * 36


@pytest.fixture(scope="module")
def run(learned):
    """The finished run, opened."""
    return flcl.open_run(learned)


@pytest.fixture(scope="module")
def pictures(data):
    """Its test images."""
    with np.load(data) as arrays:
        return arrays["test_images"]


def test_the_answer_for_an_image_does_not_depend_on_its_company(run, pictures):
    """Up to 1e-5: the order of sums in a matrix product may depend on the row."""
    whole = run.classify(pictures).scores
    for part in (slice(0, 1), slice(5, 8), slice(3, 20)):
        alone = run.classify(pictures[part]).scores
        np.testing.assert_allclose(alone, whole[part], atol=1e-5)
    shuffled = np.random.default_rng(0).permutation(len(pictures))
    np.testing.assert_allclose(run.classify(pictures[shuffled]).scores, whole[shuffled], atol=1e-5)


def test_the_batch_size_of_the_evaluation_does_not_matter(learned, run, pictures, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(learned, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["train"]["eval_batch_size"] = 40
    (copy / "config.json").write_text(json.dumps(stored))
    (copy / "digests.json").unlink()  # otherwise a changed config is refused
    other = flcl.open_run(copy).classify(pictures).scores
    np.testing.assert_allclose(other, run.classify(pictures).scores, atol=1e-5)


@pytest.mark.parametrize("head", [None, "lda"])
def test_the_function_gives_the_scores_of_the_run(run, pictures, head):
    images = np.repeat(pictures[:6], 3, axis=3)
    wanted = run.classify(images, head=head).scores
    parameters, classify = run.functional(head=head)
    # Statistics from which the heads are solved are not needed.
    assert len(jax.tree.leaves(parameters)) < len(jax.tree.leaves(run._memory(3)))
    mesh = meshes.make_mesh(devices=jax.devices()[:2])
    spread = jax.device_put(images, sharding.over_devices(mesh))
    scores = jax.jit(lambda p, x: -jax.jit(classify)(p, x))(parameters, spread)
    np.testing.assert_allclose(-scores, wanted, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(classify, in_axes=(None, 0))(parameters, images.reshape(2, 3, 8, 8, 3))
    np.testing.assert_allclose(mapped.reshape(6, -1), wanted, rtol=1e-5, atol=1e-5)
    # After the first task two classes are learned.
    early = classify(run.functional(head=head, after=1)[0], images)
    assert np.isfinite(early).sum() == 12 and np.isneginf(early).sum() == 24


def test_a_gradient_reaches_the_images(run, pictures):
    parameters, classify = run.functional(head="linear")
    image = np.repeat(pictures[:1], 3, axis=3).astype(np.float32)

    def score(image):
        return classify(parameters, image)[0, 2]

    gradient = jax.jit(jax.grad(score))(image)
    step = 0.5 * np.sign(gradient)
    measured = (score(image + step) - score(image - step)) / 2
    np.testing.assert_allclose(measured, (gradient * step).sum(), rtol=0.05)


def test_a_stored_classifier_takes_any_number_of_images(run, pictures, tmp_path):
    pytest.importorskip("flatbuffers")  # JAX stores programs with it
    images = np.repeat(pictures[:5], 3, axis=3)
    for weights in ("inside", "beside"):
        stored = run.export(tmp_path / f"{weights}.jax", weights=weights, head="lda")
        assert stored.labels == dict(zip(run.class_names, range(6), strict=True))
        program = export.deserialize(bytearray(stored.files[0].read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu") and program.nr_devices == 1
        given = [load_file(path) for path in stored.files[1:]]
        assert stored.arguments == ("weights", "images")[1 - len(given) :]
        for some in (images, images[:3]):
            wanted = run.classify(some, head="lda").scores
            np.testing.assert_allclose(program.call(*given, some), wanted, rtol=1e-5, atol=1e-5)


def test_files_and_arrays_are_classified_alike(run, pictures, tmp_path):
    paths = []
    for number, pixels in enumerate(pictures[:3]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels[..., 0]).save(paths[-1])
    np.testing.assert_array_equal(run.classify(paths).classes, run.classify(pictures[:3]).classes)
    one = run.classify(pictures[0])
    assert one.names == (run.class_names[one.classes[0]],)


def test_evaluation_counts_as_a_loop_does(run, data):
    found = run.evaluate_on()
    with np.load(data) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    answers = run.classify(images).classes
    assert found["top1"] == pytest.approx(np.mean(answers == labels))
    assert found["images"] == len(labels) and found["top5"] >= found["top1"]
    for class_id, name in enumerate(run.class_names):
        want = np.mean(answers[labels == class_id] == class_id)
        assert found["per_class"][name] == pytest.approx(want)
        row = found["confusion"][class_id]
        assert row == [int(np.sum(answers[labels == class_id] == other)) for other in range(6)]
    assert found["per_domain"] == {}


def test_domains_of_other_images_are_counted_apart(run, tmp_path):
    path = tiny.write_domains(tmp_path / "two.npz")
    found = run.evaluate_on(f"npz:{path}")
    with np.load(path) as arrays:
        images, labels, domains = (arrays[f"test_{n}"] for n in ("images", "labels", "domains"))
    right = run.classify(images).classes == labels
    wanted = {name: right[domains == d].mean() for d, name in enumerate(("ink", "oil"))}
    assert found["per_domain"] == pytest.approx(wanted) and len(right) == found["images"]


def test_the_matrix_is_made_again_from_disk(run, learned):
    stored = json.loads((learned / "results.json").read_text())
    assert run.evaluate()["matrix"] == stored["matrix"]


def test_a_folder_of_some_classes_is_evaluated(run, pictures, tmp_path):
    for name, index in (("cat", 16), ("bee", 8)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.fromarray(pictures[index][..., 0]).save(tmp_path / "mine" / name / "a.png")
    found = run.evaluate_on(f"folder:{tmp_path / 'mine'}")
    assert found["images"] == 2 and found["per_class"]["ant"] is None
    (tmp_path / "mine" / "unicorn").mkdir()
    shutil.copy(tmp_path / "mine" / "cat" / "a.png", tmp_path / "mine" / "unicorn" / "a.png")
    with pytest.raises(ValueError, match="unicorn"):
        run.evaluate_on(f"folder:{tmp_path / 'mine'}")


def test_an_earlier_model_knows_fewer_classes(run, pictures):
    assert set(run.classify(pictures, after=1).classes) <= {0, 1}
    found = run.evaluate_on(after=1)
    assert (found["images"], found["images_learned"]) == (48, 16)
    assert found["top1"] == pytest.approx(found["top1_learned"] / 3)
    assert run.evaluate_on()["top1_learned"] == run.evaluate_on()["top1"]
    with pytest.raises(ValueError, match="after=4: this run has learned tasks 1-3"):
        run.classify(pictures, after=4)


@pytest.mark.parametrize(
    ("images", "head", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), None, "uint8"),
        ([], None, "images: none were given"),
        (np.zeros((2, 8, 8, 3), np.uint8), "nearest", "head='nearest': accepted are linear"),
    ],
)
def test_bad_questions_are_refused(run, images, head, message):
    with pytest.raises(ValueError, match=message):
        run.classify(images, head=head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__batch_size": 10}, "train.batch_size=10: must be a multiple of the 4 devices"),
        ({"stream__scenario": "dil"}, "domain"),
        ({"model__weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        flcl.run(tiny.classifier_of(data, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_held_out_images_are_not_trained_on(data):
    setup = prepare(tiny.classifier_of(data))[0]
    pools = setup.data.train(setup.data.stream.tasks[1])
    train, held = complexity.split(pools, 0.25, seed=0, task=2)
    for label, pool in pools.items():
        parts = [set(p[label].indices.tolist()) for p in (train, held)]
        assert parts[0] | parts[1] == set(pool.indices.tolist()) and not parts[0] & parts[1]
        assert len(parts[1]) == 6
    again = complexity.split(pools, 0.25, seed=0, task=2)[1]
    assert all(np.array_equal(again[label].indices, held[label].indices) for label in held)
    one = {0: dataclasses.replace(pools[2], indices=pools[2].indices[:1])}
    train, held = complexity.split(one, 0.25, seed=0, task=2)
    assert len(train[0].indices) == len(held[0].indices) == 1


def test_its_own_evaluation_sees_no_training_image(data, tmp_path, capsys):
    """A folder that a hash split in two: only the part that was set aside is tested.

    The sizes of the network are those of its weights file, and the run says so.
    """
    with np.load(data) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "pictures" / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(folder / f"{number}.png")
    changes = {"data__source": f"folder:{tmp_path / 'pictures'}", "model__weights": "tiny"}
    run = tiny.classifier_of(data, "class_mean", model__variant="weights", **changes)
    results = flcl.run(run, tmp_path / "run")
    said = "weights tiny: flcl Nano/4, positions resized from 4x4 to 2x2 (bicubic), images"
    assert said in capsys.readouterr().out
    opened = flcl.open_run(tmp_path / "run")
    assert (opened.settings.model.variant, opened.settings.model.layer_scale) == ("Nano/4", False)
    assert opened.evaluate_on()["images"] == sum(results["test_counts"]) < len(labels) / 2
    everything = opened.evaluate_on(f"folder:{tmp_path / 'pictures'}")
    assert everything["images"] == len(labels)


def test_drift_follows_every_class_of_a_group(data, tmp_path, monkeypatch):
    monkeypatch.setattr(classifying, "DRIFT_IMAGES", 5)
    seen = []
    real = classifying.ClassifierEvaluation._drift

    def spy(self, group, features, own):
        seen.append(len(features))
        with np.errstate(all="ignore"):
            return real(self, group, features, own)

    monkeypatch.setattr(classifying.ClassifierEvaluation, "_drift", spy)
    monkeypatch.setattr(
        classifying.Inference,
        "features",
        lambda self, memory, images, _: np.repeat(images.labels[:, None] + 1.0, 64, axis=1),
    )
    run = tiny.classifier_of(data, "class_mean", stream__tasks="1")
    flcl.run(run, tmp_path / "run")
    with np.load(tmp_path / "run" / "features" / "group_01.npz") as kept:
        followed = kept["features"][:, 0]
    assert followed.min() == 1.0 and followed.max() == 6.0  # from the first class to the last
    assert seen == [5]


def test_the_work_of_a_step_is_counted_against_full_finetuning(data):
    found = flcl.step_flops(tiny.classifier_of(data, "linear_probe"))
    assert len(found["step_flops"]) == 2 and len(found["share_of_finetuning"]) == 2
    assert all(0.2 < share < 0.6 for share in found["share_of_finetuning"])  # forward, and no more
    assert flcl.step_flops(tiny.classifier_of(data, "class_mean"))["step_flops"] == [0.0, 0.0]
    with pytest.raises(ValueError, match="is no classifier"):
        flcl.step_flops(tiny.settings_of(data))


def test_devices_share_the_work_and_get_the_same_loss(data):
    setup = prepare(tiny.classifier_of(data))[0]
    method, task = setup.method, setup.data.stream.tasks[1]
    memory = jax.jit(method.init)(jax.random.key(0))
    trainable, frozen = method.begin(memory, task, jax.random.key(1))
    batch = method.batches(task, setup.data.train(task), (0, 1))[0]
    found = []
    for devices in (1, jax.device_count()):
        mesh = meshes.make_mesh(devices=jax.devices()[:devices])
        programs = Phase(method, 2, trainable, frozen, mesh)
        state = programs.create(jax.device_put(trainable, sharding.of_tree(trainable, mesh)), 4)
        placed = sharding.place_batch(batch, mesh, method.spread)
        tree = jax.device_put(frozen, sharding.of_tree(frozen, mesh))
        key = jax.device_put(jax.random.key(2), sharding.replicated(mesh))
        compiled = programs.step.lower(state, tree, placed, key).compile()
        exchanged = hlo.summary(hlo.collectives(compiled.as_text(), devices))
        kinds = [("all-reduce", 1)] if devices > 1 else []
        assert [(each["kind"], each["count"]) for each in exchanged] == kinds
        _, metrics = compiled(state, tree, placed, key)
        found.append((float(metrics["loss"]), compiled.cost_analysis()["flops"]))
    (loss_1, flops_1), (loss_n, flops_n) = found
    assert loss_n == pytest.approx(loss_1, rel=2e-6)
    assert jax.device_count() * flops_n < 1.2 * flops_1
