"""What FM-LoRA reads from the images of a task before it trains, and how its prompt starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.data.selection import Selection
from flcl.data.sequence.tasks import TaskData
from flcl.devices import mesh as meshes
from flcl.runs.memory import restore_task
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.setup import Setup
from flcl.training.survey import Survey

KEY = jax.random.key(0)
LABELS = np.asarray([2, 3, 2, 3, 2, 3])


def surveyed(method, memory, task, images, labels):
    """The memory from which `task` begins, and its sums."""
    compared = np.isin(np.arange(6), method.compared(task))
    batch = {"images": images, "labels": labels, "weights": np.ones(len(images), np.float32)}
    sums = method.survey(memory, compared, batch)
    return method.with_survey(memory, task, sums), sums


def test_the_gradient_is_that_of_the_cores_and_of_the_finished_model(build, images, learn):
    """A' G B is the gradient of the loss by a core; the loss is that of training."""
    method = build(rank__selector="full", lora__coverage=True)
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    task = method.stream.tasks[1]
    after, sums = surveyed(method, memory, task, images, LABELS)
    trainable, frozen = method.begin(memory, task, KEY)

    def loss(cores):
        changed = frozen | {"cores": cores}
        return method.task_losses(2, trainable, changed, images, jnp.asarray(LABELS)).sum()

    held = 0.0
    for block, sites in jax.grad(loss)(memory["cores"]).items():
        for site, core in sites.items():
            a, b = (memory["bases"][block][site][name] for name in ("a", "b"))
            np.testing.assert_allclose(a.T @ sums["gradient"][block][site] @ b, core[0], atol=1e-5)
            held += float((core[0] ** 2).sum())
    total = sum(float((g**2).sum()) for g in jax.tree.leaves(sums["gradient"]))
    report = method.diagnose(method.end(after, task, trainable), task)
    assert report["coverage"] == pytest.approx(held / total, rel=1e-4)


def test_the_moments_are_those_of_what_the_map_reads(build, images, learn):
    method = build(rank__selector="energy:0.99", lora__sites=("q", "fc1"))
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    after, _ = surveyed(method, memory, method.stream.tasks[1], images, LABELS)
    model = method.inference(memory)
    _, seen = method.network.apply(
        {"params": model["trunk"], "adapter": model["adapters"]},
        method._normalised(images),
        model["prompt"],
        capture_intermediates=lambda module, _: (module.name or "").startswith("norm"),
    )
    for block, sites in memory["bases"].items():
        for site, norm in (("q", "norm1"), ("fc1", "norm2")):
            (x,) = seen["intermediates"][block][norm]["__call__"]
            rows = np.asarray(x).reshape(-1, x.shape[-1]) @ np.asarray(sites[site]["a"])
            np.testing.assert_allclose(after["moments"][block][site], rows.T @ rows, rtol=1e-3)


def test_every_image_counts_once_however_batches_fall(build, images, learn):
    """Six images in batches of four: the last batch repeats two, with a weight of zero."""
    method = build(train__batch_size=4, lora__coverage=True, rank__selector="energy:0.9")
    memory, _, _ = learn(method, method.init(KEY), method.stream.tasks[0])
    task, done = method.stream.tasks[1], []
    want, _ = surveyed(method, memory, task, images, LABELS)
    mesh = meshes.make_mesh()
    with jax.set_mesh(mesh):
        pools = {label: Selection(images, np.flatnonzero(LABELS == label)) for label in (2, 3)}
        got = Survey(method, mesh).memory(memory, task, pools, lambda *_: done.append)
    assert done == [4, 6]
    np.testing.assert_allclose(got["coverage"], want["coverage"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        got["moments"],
        want["moments"],
    )


def test_bases_from_the_gradient_change_nothing_at_first_and_then_follow_it(build, images):
    """One step of the factors lowers the loss more than one of equal size on random bases."""
    gains = {}
    for start in ("gradient", "learned"):
        method = build(lora__bases=start, rank__selector="full", prompt__tokens=0)
        task, memory = method.stream.tasks[0], method.init(KEY)
        assert method.surveys(task) == (start == "gradient")
        assert not method.surveys(method.stream.tasks[1])
        before = method.features(memory, images)
        if start == "gradient":
            memory, _ = surveyed(method, memory, task, images, LABELS - 2)
        trainable, frozen = method.begin(memory, task, KEY)

        def loss(trainable, frozen=frozen, method=method):
            return method.task_losses(1, trainable, frozen, images, jnp.asarray(LABELS - 2)).mean()

        model, _ = method.model(1, trainable, frozen, KEY, jnp.ones(()))
        np.testing.assert_array_equal(method.encode(method._normalised(images), **model), before)
        still = jax.tree.map(jnp.zeros_like, trainable["head"])
        gradient = jax.grad(loss)(trainable) | {"head": still}
        moved = jax.tree.map(lambda v, g: v - 1e-3 * jnp.sign(g), trainable, gradient)
        gains[start] = float(loss(trainable) - loss(moved))
    assert gains["gradient"] > gains["learned"] > 0


def test_a_gated_prompt_does_not_count_before_its_gate_opens(build, images):
    """To the bit: the same images without a prompt."""
    without, gated = build(prompt__tokens=0), build(prompt__init="gated")
    memory = gated.init(KEY)
    assert set(memory["prompt"]) == {"tokens", "gates"}
    plain = {name: value for name, value in memory.items() if name != "prompt"}
    want = without.features(plain, images)
    np.testing.assert_array_equal(gated.features(memory, images), want)
    trainable, frozen = gated.begin(memory, gated.stream.tasks[0], KEY)
    batch = {"images": images, "labels": jnp.asarray(LABELS - 2)}
    gradient = jax.grad(lambda t: gated.loss(1, t, frozen, batch, KEY, jnp.zeros(())))(trainable)
    assert np.all(np.asarray(gradient["prompt"]["gates"]) != 0)
    assert np.all(np.asarray(gradient["prompt"]["tokens"]) == 0)
    memory["prompt"]["gates"] += 0.5
    assert np.abs(gated.features(memory, images) - want).max() > 1e-4
    assert gated.describe()["prompt_parameters"] == 2 * gated.width + len(memory["prompt"]["gates"])


def test_a_prompt_can_start_at_the_mean_patch_of_the_first_task(build, images):
    method = build(prompt__init="mean")
    first, later = method.stream.tasks[:2]
    assert method.surveys(first) and not method.surveys(later)
    memory = method.init(KEY)
    after, _ = surveyed(method, memory, first, images, LABELS - 2)
    trunk, side = memory["trunk"], 8 // 4
    pixels = np.asarray(method._normalised(images)).reshape(6, side, 4, side, 4, 3)
    patches = np.moveaxis(pixels, 2, 3).reshape(6, side**2, -1)
    kernel = np.asarray(trunk["patches"]["kernel"]).reshape(-1, method.width)
    tokens = (
        patches @ kernel
        + np.asarray(trunk["patches"]["bias"])
        + np.asarray(trunk["position"])[None, 1:]
    )
    want = np.asarray(memory["prompt"]) + tokens.mean(axis=(0, 1))
    np.testing.assert_allclose(after["prompt"], want, atol=1e-5)
    assert np.abs(np.diff(after["prompt"], axis=0)).max() > 0  # equal tokens would stay equal


@pytest.mark.parametrize("init", ["normal", "gated"])
def test_the_stored_prompt_may_be_the_mean_of_those_of_all_tasks(build, learn, init):
    method = build(prompt__average=True, prompt__init=init)
    memory, prompts = method.init(KEY), []
    for task in method.stream.tasks:
        memory, trainable, _ = learn(method, memory, task)
        prompts.append(trainable["prompt"])
        mean = jax.tree.map(lambda *all_so_far: sum(all_so_far) / len(all_so_far), *prompts)
        for got, want in zip(*map(jax.tree.leaves, (memory["prompt"], mean)), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_first_task_may_have_more_epochs(build):
    first, later, _ = build().stream.tasks
    method = build(train__first_epochs=6.0)
    assert [method.steps(task, 32) for task in (first, later)] == [12, 4]
    assert build().steps(first, 32) == 4
    joint = build(train__first_epochs=6.0, stream__joint=True)
    assert joint.steps(joint.stream.tasks[0], 32) == 4


@pytest.mark.parametrize("combine", ["last", "scaled"])
@pytest.mark.parametrize("selector", ["energy:0.3", "fixed:1", "full"])
def test_a_task_that_is_kept_apart_stores_what_its_rank_needs(
    build, learn, images, tmp_path, combine, selector
):
    method = build(lora__combine=combine, rank__selector=selector)
    mesh, memory = meshes.make_mesh(), method.init(KEY)
    setup = Setup(method.run, TaskData(None, method.stream), method, mesh)
    restored, planned = memory, method.describe()["bytes_per_task"]
    with jax.set_mesh(mesh), Checkpoints(tmp_path) as checkpoints:
        for task in method.stream.tasks[:2]:
            memory, _, _ = learn(method, memory, task)
            checkpoints.save_task(task.index, method.added(memory, task))
            restored = restore_task(setup, checkpoints, restored, task)
            for name in ("cores", "scales", "bases", "prompt"):
                jax.tree.map(np.testing.assert_array_equal, restored[name], memory[name])
    report = method.diagnose(restored, method.stream.tasks[1])
    rank = report["rank_selection"]["rank"]
    assert rank == 4 if selector == "full" else rank < 2
    # Four maps: a core of 4 x 4 each, or two factors of 4 x rank.
    saved = 4 * 4 * (16 - 2 * 4 * rank) if rank < 2 else 0
    assert report["bytes"] == planned[1] - saved


@pytest.mark.parametrize("start", ["learned", "gradient"])
def test_bases_that_grow_change_no_feature_and_give_the_task_new_directions(
    build, learn, images, start
):
    """To the bit, because the shapes are those of the capacity from the beginning."""
    method = build(
        lora__rank=2, lora__capacity=6, lora__grow=0.9, lora__bases=start, rank__selector="full"
    )
    first, task, _ = method.stream.tasks
    memory, _ = surveyed(method, method.init(KEY), first, images, LABELS - 2)
    memory, trained, _ = learn_with_gradients(method, memory, first, images, LABELS - 2)
    assert trained["bases"]["block_00"]["q"]["a"].shape[1] == 6
    assert method.diagnose(memory, first)["columns"] == 2
    before = method.features(memory, images)
    after, _ = surveyed(method, memory, task, images, LABELS)
    np.testing.assert_array_equal(method.features(after, images), before)
    after, _, _ = learn(method, after, task)
    report = method.diagnose(after, task)
    assert 0 < report["coverage"] < 0.9 and 2 < report["columns"] <= 6
    restored = method.restore(memory, task, method.added(after, task))
    np.testing.assert_array_equal(method.features(restored, images), method.features(after, images))


def learn_with_gradients(method, memory, task, images, labels):
    """As `learn`, but with a step of gradient descent, which no free column can take part in."""
    trainable, frozen = method.begin(memory, task, KEY)

    def loss(trainable):
        return method.task_losses(1, trainable, frozen, images, jnp.asarray(labels)).mean()

    for _ in range(2):
        trainable = jax.tree.map(lambda v, g: v - g, trainable, jax.grad(loss)(trainable))
    return method.end(memory, task, trainable), trainable, frozen
