"""FM-LoRA as a method: counts, starts, folding, what moves and what cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classifiers
from flcl import methods
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.settings import bridge

KEY = jax.random.key(0)
END = jnp.ones(())  # the share of a task that is done when it ends


def same(got, want, atol=0.0):
    """Two trees agree."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=0), got, want)


def features_in_training(method, trainable, frozen, images, phase, progress=END):
    """Features by the model that the loss of a phase sees."""
    model, _ = method.model(phase, trainable, frozen, KEY, progress)
    return method.encode(method._normalised(images), **model)


def test_counts_of_vit_b16():
    run = bridge.defaults("fmlora")
    run.update_from_flattened_dict(
        {"data.image_size": 224, "data.channels": 3, "stream.tasks": "10", **classifiers.PAPER}
    )
    run = bridge.freeze(run)
    method = methods.build(run, make_stream(run.stream, placeholder(100)).exact())
    sizes = method.describe()
    assert sizes["trunk_parameters"] == 85_798_656
    assert sizes["shared_parameters"] == 368_640
    assert sizes["parameters_per_task"] == 4_800
    assert sizes["head_parameters"] == 768 * 100 + 100
    assert sizes["prompt_parameters"] == 10 * 768
    later = sizes["head_parameters"] + 4_800 + 7_680 + 2 * 5  # and w, b over five ranks
    assert sizes["trained_parameters"] == [later - 10 + 368_640] + [later] * 9
    # Class rows of 10 classes, prompt, cores [r, r] of 24 maps, selector, complexity.
    numbers = 10 * 769 + 7_680 + 2_400 + 10 + 10
    # Every task moves features, so it stores all means, their scatter and what was held out.
    moved = 100 * 769 + 768**2 + 4 * 4
    assert sizes["bytes_per_task"][1:] == [4 * (numbers + moved)] * 9
    once = 4 * (768**2 + 4 * 4)
    assert sizes["statistics_bytes"] == {"per_class": 2 * 4 * 769, "once": once}


@pytest.mark.parametrize("combine", ["sum", "scaled"])
def test_a_task_starts_with_the_function_of_the_last_one(build, images, learn, combine):
    method = build(lora__combine=combine)
    memory = method.init(KEY)
    for task in method.stream.tasks:
        before = method.features(memory, images)
        trainable, frozen = method.begin(memory, task, jax.random.key(task.index))
        start = features_in_training(method, trainable, frozen, images, method.phase(task))
        np.testing.assert_allclose(start, before, atol=1e-5)
        memory, _, _ = learn(method, memory, task)
        assert np.abs(method.features(memory, images) - before).max() > 1e-2


@pytest.mark.parametrize("combine", ["sum", "last", "scaled"])
@pytest.mark.parametrize("selector", ["centred", "literal", "fixed:2"])
def test_folding_a_task_changes_no_feature(build, images, learn, combine, selector):
    method = build(lora__combine=combine, rank__selector=selector)
    memory = method.init(KEY)
    for task in method.stream.tasks:
        memory, trainable, frozen = learn(method, memory, task)
        trained = features_in_training(method, trainable, frozen, images, method.phase(task))
        np.testing.assert_allclose(method.features(memory, images), trained, atol=2e-5)


def test_after_task_1_bases_trunk_and_old_rows_keep_their_bits(build, learn):
    method = build()
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    first = jax.tree.map(np.asarray, memory)
    for task in method.stream.tasks[1:]:
        memory, _, _ = learn(method, memory, task)
        for name in ("bases", "trunk"):
            jax.tree.map(np.testing.assert_array_equal, memory[name], first[name])
    for sites in memory["bases"].values():
        for entry in sites.values():
            np.testing.assert_allclose(entry["a"].T @ entry["a"], np.eye(4), atol=1e-5)


def test_memory_does_not_grow_with_tasks_unless_scaled(build):
    sizes = build().describe()["bytes_per_task"]
    assert sizes[1] == sizes[2]
    summed, scaled = (build(lora__combine=c).init(KEY)["cores"] for c in ("sum", "scaled"))
    slots = [jax.tree.leaves(tree)[0].shape[0] for tree in (summed, scaled)]
    assert slots == [1, 3]


def test_stored_parts_put_the_memory_back(build, learn):
    for combine in ("sum", "last", "scaled"):
        method = build(lora__combine=combine)
        memory, restored = method.init(KEY), method.init(KEY)
        for task in method.stream.tasks:
            memory, _, _ = learn(method, memory, task)
            restored = method.restore(restored, task, method.added(memory, task))
        # The means are not learned here; M and N of a task are not needed once it is stored.
        both = (
            {k: v for k, v in m.items() if k not in ("means", "newest")} for m in (restored, memory)
        )
        same(*both)


def test_only_rows_of_the_task_get_a_gradient(build, images):
    method = build()
    memory = method.init(KEY)
    task = method.stream.tasks[1]
    trainable, frozen = method.begin(memory, task, KEY)
    batch = {"images": images, "labels": jnp.asarray([2, 3, 2, 3, 2, 3])}
    grads = jax.grad(lambda t: method.loss(2, t, frozen, batch, KEY, jnp.zeros(())))(trainable)
    kernel = np.abs(np.asarray(grads["head"]["kernel"])).max(axis=0)
    assert (kernel[[2, 3]] > 0).all() and (kernel[[0, 1, 4, 5]] == 0).all()
    assert set(trainable) == {"head", "factors", "prompt", "selector"}
    assert np.abs(np.asarray(grads["prompt"])).max() > 0


def test_the_loss_is_the_cross_entropy_over_the_classes_of_the_task(build, images):
    method = build(train__min_crop=1.0, rank__selector="fixed:4")
    memory = method.init(KEY)
    task = method.stream.tasks[1]
    trainable, frozen = method.begin(memory, task, KEY)
    labels = np.asarray([2, 3, 2, 3, 2, 3])
    batch = {"images": images, "labels": jnp.asarray(labels)}
    got = method.loss(2, trainable, frozen, batch, KEY, jnp.zeros(()))
    features = np.asarray(features_in_training(method, trainable, frozen, images, 2), np.float64)
    logits = features @ np.asarray(memory["head"]["kernel"], np.float64)[:, [2, 3]]
    own = logits[np.arange(6), labels - 2]
    np.testing.assert_allclose(got, np.mean(np.log(np.exp(logits).sum(axis=1)) - own), rtol=1e-5)


def test_the_selection_sees_the_schedule_and_the_short_run_does_not(build, images):
    method = build(rank__penalty=10.0)
    memory = method.init(KEY)
    task = method.stream.tasks[1]
    trainable, frozen = method.begin(memory, task, KEY)
    batch = {"images": images, "labels": jnp.asarray([2, 3, 2, 3, 2, 3])}

    def selector_gradient(frozen, progress):
        grads = jax.grad(lambda t: method.loss(2, t, frozen, batch, KEY, jnp.asarray(progress)))
        return np.abs(np.asarray(grads(trainable)["selector"]["bias"])).max()

    assert selector_gradient(frozen, 0.1) > 1e-3
    assert selector_gradient(frozen, 0.9) == 0
    assert selector_gradient(method.probing(frozen)[0], 0.1) == 0


def test_the_rank_follows_the_complexity_of_the_task(build, learn):
    method = build()
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    found = []
    for complexity in (0.1, 3.0):
        trainable, frozen = method.begin(memory, method.stream.tasks[1], KEY)
        after, frozen = method.with_losses(memory, frozen, method.stream.tasks[1], [complexity])
        after = method.end(after, method.stream.tasks[1], trainable)
        found.append(method.diagnose(after, method.stream.tasks[1])["rank_selection"])
    assert [each["rank"] for each in found] == [1, 4]
    assert found[1]["complexity"] == 3.0
    np.testing.assert_allclose(found[1]["centred"], (3.0 - 0.6) / 0.6, rtol=1e-4)
    assert sum(found[1]["probabilities"]) == pytest.approx(1.0, abs=1e-5)


def test_without_a_prompt_there_is_none(build):
    memory = build(prompt__tokens=0).init(KEY)
    assert "prompt" not in memory and "prompt" in build().init(KEY)


def test_the_prompt_can_move_slower_in_later_tasks(build):
    method = build(prompt__later_factor=0.1)
    assert method.parts(1)["prompt"].learning_rate == 1e-2
    assert method.parts(2)["prompt"].learning_rate == pytest.approx(1e-3)


def test_the_selector_starts_afresh_in_every_task(build, learn):
    method = build()
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    memory, trained, _ = learn(method, memory, method.stream.tasks[1])
    again, _ = method.begin(memory, method.stream.tasks[2], KEY)
    first, _ = method.begin(memory, method.stream.tasks[1], KEY)
    same(again["selector"], first["selector"])
    assert np.abs(trained["selector"]["bias"]).max() > 0
