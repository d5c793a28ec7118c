"""What FM-LoRA is compared with: what each one trains, keeps and remembers."""

import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.methods import base
from flcl.runs.later.removal import without
from flcl.runs.opened.classifier import ClassifierOnDisk

KEY = jax.random.key(0)
FROZEN = ("frozen", "class_mean")
METHODS = (*FROZEN, "linear_probe", "vit_finetune", "lora_sequential", "sd_lora")
METHODS += ("first_session", "slca", "rsiat")


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("linear_probe", {"head"}),
        ("vit_finetune", {"head", "trunk"}),
        ("lora_sequential", {"head", "lora"}),
        ("sd_lora", {"head", "lora", "magnitudes"}),
        ("slca", {"head", "trunk"}),
        ("rsiat", {"head", "bottleneck"}),
    ],
)
def test_what_trains(build, method, parts):
    method = build(method)
    trainable, frozen = method.begin(method.init(KEY), method.stream.tasks[1], KEY)
    assert set(trainable) == parts == set(method.parts(2))
    assert ("trunk" in frozen) == ("trunk" not in trainable)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("vit_finetune", {}),
        ("lora_sequential", {}),
        ("sd_lora", {}),
        ("sd_lora", {"lora__magnitudes": "per_map"}),
        ("slca", {}),
        ("rsiat", {"bottleneck__scale": 1.0}),
    ],
)
def test_a_task_starts_where_the_last_one_ended_and_ends_as_it_was_trained(
    build, images, learn, method, changes
):
    method = build(method, **changes)
    starts_there = method.name != "sd_lora" or not method.shared
    memory = method.init(KEY)
    for task in method.stream.tasks:
        phase, before = method.phase(task), method.features(memory, images)
        trainable, frozen = method.begin(memory, task, jax.random.key(task.index))
        start, _ = method.model(phase, trainable, frozen, KEY, jnp.zeros(()))
        start = method.encode(method._normalised(images), **start)
        if starts_there or task.index == 1:
            np.testing.assert_allclose(start, before, atol=1e-5)
        memory, trainable, frozen = learn(method, memory, task)
        end, _ = method.model(phase, trainable, frozen, KEY, jnp.ones(()))
        end = method.encode(method._normalised(images), **end)
        np.testing.assert_allclose(method.features(memory, images), end, atol=2e-5)
        assert np.abs(end - before).max() > 1e-3


def update_of(adapter: dict) -> np.ndarray:
    """What an adapter adds to a kernel, in float64."""
    a, core, b = (np.asarray(adapter[name], np.float64) for name in ("a", "core", "b"))
    return a @ core @ b.T


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_shared_magnitudes_are_those_of_the_public_code(build, moved, scale):
    """dW = sum_k alpha_k A_k B_k' / (|A_k| |B_k|) + beta A_t B_t', all from 0.8 in every task."""
    method = build("sd_lora", lora__scale=scale)
    memory, directions = method.init(KEY), []
    for task in method.stream.tasks:
        trainable, frozen = method.begin(memory, task, jax.random.key(task.index))
        first = trainable["magnitudes"]
        assert {name: v.shape for name, v in first.items()} == (
            {"newest": ()} if task.index == 1 else {"newest": (), "past": (3,)}
        )
        assert all(np.all(np.asarray(v) == np.float32(0.8)) for v in first.values())
        trained = moved(trainable, task.index)
        trained["head"] = trainable["head"]
        model, _ = method.model(method.phase(task), trained, frozen, KEY, jnp.zeros(()))
        memory = method.end(memory, task, trained)
        a, b = (np.asarray(trained["lora"]["block_01"]["v"][n], np.float64) for n in ("a", "b"))
        past = trained["magnitudes"].get("past", ())
        old = sum(float(alpha) * d for alpha, d in zip(past, directions, strict=False))
        want = scale * (old + float(trained["magnitudes"]["newest"]) * a @ b.T)
        for adapters in (model["adapters"], method.inference(memory)["adapters"]):
            np.testing.assert_allclose(update_of(adapters["block_01"]["v"]), want, atol=1e-5)
        directions.append(a @ b.T / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("magnitudes", "extra"), [("shared", 1), ("per_map", 4)])
def test_sd_lora_counts_a_magnitude_per_task_or_per_map(build, magnitudes, extra):
    method = build("sd_lora", lora__magnitudes=magnitudes)
    assert method.parameters_per_task() == 2 * 2 * 4 * (64 + 64) + extra


def test_sd_lora_keeps_old_directions_at_unit_size(build, learn):
    method = build("sd_lora")
    memory = method.init(KEY)
    for task in method.stream.tasks[:2]:
        memory, _, _ = learn(method, memory, task)
    first = jax.tree.map(lambda v: np.asarray(v[0]), memory["directions"])
    norms = [np.linalg.norm(v) for v in jax.tree.leaves(first)]
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
    memory, _, _ = learn(method, memory, method.stream.tasks[2])
    jax.tree.map(
        np.testing.assert_array_equal,
        first,
        jax.tree.map(lambda v: np.asarray(v[0]), memory["directions"]),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["local", "gaussian"])
def test_stored_parts_put_the_memory_back(build, learn, calibrated, method, loss):
    if loss == "gaussian" and method in (*FROZEN, "first_session", "slca", "rsiat"):
        pytest.skip("this method has no such loss")
    method = build(method, **({} if loss == "local" else {"train__loss": loss}))
    memory, restored = method.init(KEY), method.init(KEY)
    for task in method.stream.tasks:
        memory, _, _ = learn(method, memory, task)
        memory = calibrated(method, memory, task)
        memory |= method.align(memory, jax.random.key(task.index))
        restored = method.restore(restored, task, method.added(memory, task))
        shapes = jax.eval_shape(lambda m, t=task: method.added(m, t), method.init(KEY))
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes, method.added(memory, task))
    jax.tree.map(np.testing.assert_array_equal, restored, memory)


@pytest.mark.parametrize("name", [*METHODS, "fmlora", "inflora"])
def test_a_removed_class_is_gone_from_every_stored_task(build, learn, calibrated, name):
    changes = {} if name in FROZEN else {"heads__fit": ("linear", "gaussian")}
    if name not in (*FROZEN, "linear_probe", "first_session"):
        changes["drift__diagnose"] = True
    method = build(name, **changes)
    first, second = method.stream.tasks[:2]
    memory = left = method.init(KEY)
    for task in (first, second):
        memory, _, _ = learn(method, memory, task)
        memory = calibrated(method, memory, task)
        memory |= method.align(memory, jax.random.key(task.index))
        _, kept = without(method, memory, task, method.added(memory, task), [1])
        left = method.restore(left, task, kept)
    # As if it had been taken out of the memory at the end: no other row and no network has moved.
    wanted = method.forget(memory, 1)
    jax.tree.map(np.testing.assert_array_equal, left | {"seen": wanted["seen"]}, wanted)
    # The run that goes on does not count it as learned.
    after = type(method)(method.run, dataclasses.replace(method.stream, removed=(1,)))
    again = after.restore(memory | {"seen": jnp.zeros(6, bool)}, first, method.added(memory, first))
    assert np.asarray(again["seen"]).tolist() == [True, *[False] * 5]
    features = np.ones((2, method.run.model.feature_width), np.float32)
    old, new = (method.scores(method.solved(each), features) for each in (memory, wanted))
    others = [0, 2, 3]
    for head in method.heads:
        assert np.isneginf(new[head][:, 1]).all() and np.isfinite(new[head][:, others]).all()
    if "linear" in method.heads:
        np.testing.assert_array_equal(new["linear"][:, others], old["linear"][:, others])


def test_losses_compare_no_class_that_was_removed(build):
    method = build("linear_probe")
    stream = dataclasses.replace(method.stream, removed=(0, 3))
    method = type(method)(method.run, stream)
    second, third = stream.tasks[1:]
    assert method.compared(third) == (4, 5) and method.compared(second) == (1, 2)
    _, frozen = method.begin(method.init(KEY), second, KEY)
    assert np.flatnonzero(frozen["labels"]).tolist() == [1, 2]
    assert np.flatnonzero(frozen["columns"]).tolist() == [2]
    alone = type(method)(method.run, dataclasses.replace(stream, removed=(0, 1, 3)))
    with pytest.raises(ValueError, match="task 2 has one class, and all earlier classes were"):
        alone.begin(alone.init(KEY), second, KEY)


def test_the_class_mean_head_is_the_nearest_mean_by_cosine(build):
    method = build("class_mean", heads__fit=("class_mean",), heads__holdout=0.0)
    memory = method.init(KEY)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, method.width)).astype(np.float32)
    labels = np.arange(30) % 4
    for task in method.stream.tasks[:2]:
        chosen = np.isin(labels, task.labels)
        memory = method.end(memory, task, {})
        memory = method.calibrate(memory, task, features[chosen], labels[chosen], None, None)
    queries = generator.normal(size=(5, method.width)).astype(np.float32)
    scores = method.scores(method.solved(memory), jnp.asarray(queries))
    got = np.asarray(scores["class_mean"])
    for row, query in zip(got, queries, strict=True):
        for label in range(4):
            mean = features[labels == label].mean(axis=0)
            want = query @ mean / np.linalg.norm(query) / np.linalg.norm(mean)
            assert row[label] == pytest.approx(want, abs=1e-5)
        assert np.all(np.isneginf(row[4:]))


@pytest.mark.parametrize(("method", "head"), [("class_mean", "class_mean"), ("frozen", "lda")])
def test_frozen_features_train_nothing(build, method, head):
    method = build(method)
    assert method.steps(method.stream.tasks[0], 100) == 0 and method.head == head
    described = method.describe()
    assert described["trained_parameters"] == [0, 0, 0] and described["head_parameters"] == 0


def test_a_class_that_is_not_learned_is_never_the_answer(build, images):
    method = build("linear_probe")
    memory = method.init(KEY)
    memory = method.end(memory, method.stream.tasks[0], {"head": memory["head"]})
    for scores in method.scores(method.solved(memory), method.features(memory, images)).values():
        assert np.all(np.isneginf(np.asarray(scores)[:, 2:]))
        assert np.isfinite(np.asarray(scores)[:, :2]).all()


@pytest.mark.parametrize(
    "function",
    [
        base.Classifier.features,
        base.Classifier.scores,
        ClassifierOnDisk.classify,
        ClassifierOnDisk.evaluate_on,
    ],
)
def test_no_function_that_classifies_takes_a_task_id(function):
    assert not {"task", "task_id", "domain"} & set(inspect.signature(function).parameters)


def test_weights_in_bfloat16_are_stored_so_and_give_nearly_the_same_features(build, images):
    exact, short = build("linear_probe"), build("linear_probe", model__trunk_dtype="bfloat16")
    memories = [method.init(KEY) for method in (exact, short)]
    assert {v.dtype.name for v in jax.tree.leaves(memories[1]["trunk"])} == {"bfloat16"}
    one, two = (
        np.asarray(method.features(memory, images))
        for method, memory in zip((exact, short), memories, strict=True)
    )
    assert 0 < np.abs(one - two).max() < 0.1


@pytest.mark.parametrize("method", [name for name in METHODS if name not in FROZEN])
def test_a_first_task_of_one_class_is_refused_where_classes_are_compared(build, method):
    build(method, stream__tasks="2,1,3").check()
    with pytest.raises(
        ValueError, match="stream.tasks='1,2,3': the first task has one class.*frozen"
    ):
        build(method, stream__tasks="1,2,3").check()
    build("frozen", stream__tasks="1,2,3").check()


def test_a_task_of_one_class_is_compared_with_the_classes_known(build, images):
    method = build("linear_probe", stream__tasks="2,1,3", train__min_crop=1.0)
    one, several = method.stream.tasks[1:]
    assert method.compared(one) == (0, 1, 2) and method.compared(several) == (3, 4, 5)
    memory = method.init(KEY)
    trainable, frozen = method.begin(memory, one, KEY)
    batch = {"images": images, "labels": jnp.full(6, 2)}
    loss, grads = jax.value_and_grad(
        lambda t: method.loss(2, t, frozen, batch, KEY, jnp.zeros(()))
    )(trainable)
    features = np.asarray(method.features(memory, images), np.float64)
    logits = features @ np.asarray(memory["head"]["kernel"], np.float64)[:, :3]
    want = np.log(np.exp(logits).sum(axis=1)) - logits[:, 2]
    np.testing.assert_allclose(loss, want.mean(), rtol=1e-5)
    # Columns of the classes known are stored with their own tasks, so they are constants here.
    moving = np.abs(np.asarray(grads["head"]["kernel"])).max(axis=0) > 0
    assert moving.tolist() == [False, False, True, False, False, False]
