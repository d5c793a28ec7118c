"""The methods of others against naive forms: first session, replay by Gaussians, SLCA, RSIAT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.methods import losses
from flcl.models import vit

KEY = jax.random.key(0)


def after(method, learn, calibrated, tasks):
    """The memory after some tasks, with statistics, aligned."""
    memory = method.init(KEY)
    for task in method.stream.tasks[:tasks]:
        memory, *_ = learn(method, memory, task)
        memory = calibrated(method, memory, task)
        memory |= method.align(memory, jax.random.key(task.index))
    return memory


def test_the_first_session_alone_trains_and_stores_an_adapter(build, learn, calibrated, images):
    method = build("first_session")
    first, second, _ = method.stream.tasks
    assert method.steps(first, 100) > 1 and method.steps(second, 100) == 0
    assert not any(map(method.corrects, method.stream.tasks))
    described = method.describe()
    assert described["trained_parameters"][0] > 0
    assert described["trained_parameters"][1:] == [0, 0]
    memory = after(method, learn, calibrated, 1)
    features = method.features(memory, images)
    later, *_ = learn(method, memory, second)
    np.testing.assert_array_equal(method.features(later, images), features)
    assert {"lora", "head", "trunk"} <= set(method.added(memory, first))
    assert not {"lora", "head", "trunk"} & set(method.added(later, second))


@pytest.mark.parametrize("head", ["lda", "ridge"])
def test_heads_of_a_first_session_do_not_depend_on_how_classes_are_cut(build, calibrated, head):
    """One task of four classes, or two of two classes, on the same features."""
    scores = []
    for tasks in ("2,2,2", "2,4"):
        method = build("first_session", stream__tasks=tasks, heads__holdout=0.0)
        memory = method.init(KEY)
        generator = np.random.default_rng(0)
        features = generator.normal(size=(24, method.width)).astype(np.float32)
        labels = np.arange(24) % 6
        for task in method.stream.tasks:
            rows = np.isin(labels, task.labels)
            memory = method.end(memory, task, {"head": memory["head"], "lora": memory["lora"]})
            memory = method.calibrate(memory, task, features[rows], labels[rows], None, None)
        scores.append(method.scores(method.solved(memory), jnp.asarray(features))[head])
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["linear_probe", "lora_sequential", "sd_lora", "fmlora"])
def test_replayed_gaussians_are_compared_with_all_classes_so_far(
    build, learn, calibrated, images, name
):
    """loss = (new L(images) + old L(drawn)) / (new + old), with the same draw."""
    method = build(name, train__loss="gaussian", train__min_crop=1.0)
    memory = after(method, learn, calibrated, 1)
    task, key = method.stream.tasks[1], jax.random.key(3)
    assert method.compared(task) == (0, 1, 2, 3)
    trainable, frozen = method.begin(memory, task, KEY)
    batch = {"images": images, "labels": jnp.array([2, 3, 2, 3, 2, 3])}
    model, extra = method.model(2, trainable, frozen, jax.random.split(key, 3)[2], jnp.ones(()))
    features = method.encode(method._normalised(images), **model)
    drawn, entries = method.drawn.draw(
        method.drawn.solve(memory), drawn_key(method, frozen, key), method.run.train.batch_size
    )
    assert set(np.asarray(entries).tolist()) == {0, 1}
    seen = np.arange(6) < 4
    means = [
        losses.local(trainable["head"], seen, x, y).mean()
        for x, y in ((features, batch["labels"]), (drawn, entries))
    ]
    value, grads = jax.value_and_grad(
        lambda t: method.loss(2, t, frozen, batch, key, jnp.ones(()))
    )(trainable)
    np.testing.assert_allclose(value, (2 * means[0] + 2 * means[1]) / 4 + extra, rtol=1e-4)
    moving = np.abs(np.asarray(grads["head"]["kernel"])).max(axis=0) > 0
    assert moving.tolist() == [True] * 4 + [False] * 2


def drawn_key(method, frozen, key):
    """The key of the draw of a step."""
    keys = []
    real = method.drawn.draw
    method.drawn.draw = lambda part, key, count: keys.append(key) or real(part, key, count)
    try:
        trainable = {"head": {"kernel": jnp.zeros((method.width, 6)), "bias": jnp.zeros(6)}}
        method._drawn_loss(trainable, frozen, key)
    finally:
        method.drawn.draw = real
    return keys[0]


def test_the_first_task_has_nothing_to_draw(build):
    method = build("linear_probe", train__loss="gaussian")
    _, frozen = method.begin(method.init(KEY), method.stream.tasks[0], KEY)
    assert set(frozen) == {"trunk", "labels", "columns"}


def test_a_cosine_head_answers_with_cosines(build, learn, calibrated, images):
    method = build("linear_probe", train__loss="cosine", train__scale=7.0)
    memory = after(method, learn, calibrated, 2)
    features = method.features(memory, images)
    scores = np.asarray(method.scores(method.solved(memory), features)["linear"])
    kernel = np.asarray(memory["head"]["kernel"], np.float64)
    for row, x in zip(scores, np.asarray(features, np.float64), strict=True):
        lengths = np.linalg.norm(x) * np.linalg.norm(kernel, axis=0)
        np.testing.assert_allclose(row[:4], (7 * x @ kernel / lengths)[:4], rtol=1e-4)
        assert np.all(np.isneginf(row[4:]))


def naive_alignment(method, memory, key):
    """Alignment by a Python loop with the optimiser of torch, in float64 but for the draws."""
    run, keys = method.run, method.run.align
    drawn = {name: np.asarray(v, np.float64) for name, v in method.drawn.solve(memory).items()}
    known = drawn["known"] > 0
    task_of = np.array([1, 1, 2, 2, 3, 3])
    current = task_of[known].max()
    drawn["mean"] = drawn["mean"] * (0.9 + 0.1 * task_of / current)[:, None]
    part = {name: jnp.asarray(v, jnp.float32) for name, v in drawn.items()}
    part["known"] = jnp.asarray(known)
    kernel, bias = (np.asarray(memory["head"][n], np.float64) for n in ("kernel", "bias"))
    momentum = [np.zeros_like(kernel), np.zeros_like(bias)]
    steps = int(np.ceil(keys.epochs * known.sum()))
    for step in range(steps):
        x, labels = method.drawn.draw(part, jax.random.fold_in(key, step), keys.batch_size)

        def mean_loss(head, x=x, labels=labels):
            if run.train.loss == "cosine":
                values = losses.cosine(head, known, x, labels, run.train.scale, 0.0)
                return values.mean()
            logits = losses.linear(head, x)
            groups = np.array([task_of == t for t in (1, 2, 3)]) & known[None]
            logits = losses.normalised(logits, groups, keys.temperature)
            top = jnp.where(known[None], logits, -1e30)
            return -jax.nn.log_softmax(top)[np.arange(len(labels)), labels].mean()

        grads = jax.grad(mean_loss)({"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)})
        rate = keys.learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        for index, (value, name) in enumerate(((kernel, "kernel"), (bias, "bias"))):
            gradient = np.asarray(grads[name], np.float64) + keys.weight_decay * value
            momentum[index] = 0.9 * momentum[index] + gradient
            value -= rate * momentum[index]
    return np.where(known[None], kernel, memory["head"]["kernel"]), bias


@pytest.mark.parametrize("covariance", ["shared", "class"])
@pytest.mark.parametrize("name", ["slca", "rsiat"])
def test_alignment_is_that_of_a_naive_loop(build, learn, calibrated, name, covariance):
    method = build(name, align__covariance=covariance, align__epochs=2.0)
    memory = after(method, learn, calibrated, 2)
    key = jax.random.key(5)
    got = jax.jit(method.align)(memory, key)["aligned"]
    kernel, bias = naive_alignment(method, memory, key)
    np.testing.assert_allclose(got["kernel"], kernel, atol=2e-4)
    np.testing.assert_allclose(got["bias"][:4], bias[:4], atol=2e-4)
    np.testing.assert_array_equal(got["kernel"][:, 4:], memory["head"]["kernel"][:, 4:])
    assert np.abs(got["kernel"] - memory["head"]["kernel"]).max() > 1e-3


def test_alignment_begins_with_the_trained_head_and_the_answer_is_the_aligned_one(
    build, learn, calibrated, images
):
    method = build("slca")
    one = after(method, learn, calibrated, 1)
    jax.tree.map(np.testing.assert_array_equal, one["aligned"], one["head"])
    two = after(method, learn, calibrated, 2)
    # Columns of the first task are as that task trained them, whatever was aligned later.
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(two["head"][name][..., :2], one["head"][name][..., :2])
    features = method.features(two, images)
    scores = method.scores(method.solved(two), features)["linear"]
    want = features @ two["aligned"]["kernel"] + two["aligned"]["bias"][None]
    np.testing.assert_allclose(scores[:, :4], want[:, :4], rtol=1e-4, atol=1e-4)


def test_alignment_is_one_program_for_all_tasks(build, learn, calibrated):
    method = build("slca")
    align = jax.jit(method.align)
    memory = method.init(KEY)
    for task in method.stream.tasks:
        memory, *_ = learn(method, memory, task)
        memory = calibrated(method, memory, task)
        memory |= align(memory, jax.random.key(task.index))
    assert align._cache_size() == 1


def test_alignment_makes_a_biased_head_right(build, calibrated):
    """Old columns that are too small lose every image; after the alignment they do not."""
    method = build("slca", align__epochs=20.0, align__learning_rate=0.1)
    memory, generator = method.init(KEY), np.random.default_rng(0)
    features = generator.normal(size=(60, method.width)).astype(np.float32) * 0.1
    labels = np.repeat(np.arange(6), 10)
    features[np.arange(60), labels] += 3.0
    for task in method.stream.tasks:
        rows = np.isin(labels, task.labels)
        memory = method.end(memory, task, {"head": memory["head"], "trunk": memory["trunk"]})
        memory = method.calibrate(memory, task, features[rows], labels[rows], None, method.scores)
    biased = np.eye(method.width)[:, :6] * np.array([0.1, 0.1, 0.1, 0.1, 1, 1])
    biased[:, 4:] += 0.5
    memory["head"] = {"kernel": jnp.asarray(biased, jnp.float32), "bias": jnp.zeros(6)}
    memory["aligned"] = memory["head"]

    def right():
        scores = method.scores(method.solved(memory), jnp.asarray(features))["linear"]
        return float((np.asarray(scores).argmax(axis=1) == labels).mean())

    before = right()
    memory |= method.align(memory, KEY)
    assert before < 0.7 and right() > 0.95


def test_the_adapter_of_rsiat_is_relu_beside_the_mlp(build, images, moved):
    """The features of a forward pass in which the block is written out."""
    method = build("rsiat", bottleneck__blocks="1", bottleneck__scale=0.5)
    memory = method.init(KEY)
    without = method.encode(method._normalised(images), memory["trunk"])
    np.testing.assert_array_equal(method.features(memory, images), without)
    memory["bottleneck"] = moved(memory["bottleneck"], 1)
    _, state = method.network.apply(
        {"params": memory["trunk"]},
        method._normalised(images),
        capture_intermediates=lambda module, _: module.name in ("block_00", "norm2", "proj"),
        mutable="intermediates",
    )
    seen, trunk = state["intermediates"], memory["trunk"]["block_01"]
    attended = seen["block_00"]["__call__"][0] + seen["block_01"]["proj"]["__call__"][0]
    hidden = seen["block_01"]["norm2"]["__call__"][0]
    hidden = jax.nn.gelu(
        jnp.einsum("btd,dh->bth", hidden, trunk["fc1"]["kernel"])
        + trunk["fc1"]["bias"][None, None],
        approximate=False,
    )
    mlp = jnp.einsum("bth,hd->btd", hidden, trunk["fc2"]["kernel"])
    adapter = memory["bottleneck"]["block_01"]
    inner = jnp.einsum("btd,dh->bth", attended, adapter["down"])
    inner = jnp.maximum(inner + adapter["down_bias"][None, None], 0)
    beside = jnp.einsum("bth,hd->btd", inner, adapter["up"]) + adapter["up_bias"][None, None]
    x = (attended + mlp + trunk["fc2"]["bias"][None, None] + 0.5 * beside)[:, 0]
    x = (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-6)
    norm = memory["trunk"]["norm"]
    want = x * norm["scale"][None] + norm["bias"][None]
    np.testing.assert_allclose(method.features(memory, images), want, atol=2e-4)
    assert np.abs(want - without).max() > 1e-2


def test_losses_of_rsiat(build, images, learn, calibrated):
    method = build("rsiat", train__min_crop=1.0, train__steer_warmup=0.5)
    run, labels = method.run.train, jnp.array([0, 1, 0, 1, 0, 1])
    memory, task = method.init(KEY), method.stream.tasks[0]
    trainable, frozen = method.begin(memory, task, KEY)
    batch, features = {"images": images, "labels": labels}, method.features(memory, images)
    plain = losses.cosine(
        memory["head"], np.arange(6) < 2, features, labels, run.scale, run.margin
    ).mean()
    pairs = losses.steering(features, labels, run.steer_margin, run.steer_apart)
    for progress, rise in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        value = method.loss(1, trainable, frozen, batch, KEY, jnp.asarray(progress))
        np.testing.assert_allclose(value, plain + run.steer * rise * pairs, rtol=1e-4)
    memory = after(method, learn, calibrated, 1)
    trainable, frozen = method.begin(memory, method.stream.tasks[1], KEY)
    before = method.features(memory, images)
    trainable["bottleneck"] = jax.tree.map(lambda v: v + 0.05, trainable["bottleneck"])
    features = method.features(memory | {"bottleneck": trainable["bottleneck"]}, images)
    batch = {"images": images, "labels": labels + 2}
    seen = (np.arange(6) // 2) == 1
    plain = losses.cosine(memory["head"], seen, features, labels + 2, run.scale, run.margin)
    moved = np.square(np.asarray(features - before)).mean()
    value = method.loss(2, trainable, frozen, batch, KEY, jnp.zeros(()))
    np.testing.assert_allclose(value, plain.mean() + run.align * moved, rtol=1e-4)
    assert moved > 1e-4


def test_rsiat_counts_its_adapter(build):
    method = build("rsiat", bottleneck__width=8)
    assert method.shared_parameters() == 2 * (2 * 64 * 8 + 8 + 64)
    memory = method.init(KEY)
    assert method.shared_parameters() == sum(v.size for v in jax.tree.leaves(memory["bottleneck"]))
    assert set(memory["bottleneck"]) == {vit.block_name(n) for n in range(2)}
