"""The losses and samples of DDGR, GUIDE and JDCL against naive loops over single images."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy.special import log_softmax, softmax

from flcl import methods
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.flow.path import draw_points
from flcl.flow.sampler import solve
from flcl.methods.rivals.jdcl import soft_entropy
from flcl.ops.pixels import to_float

KEY = jax.random.key(3)
# Far from their defaults, at which the small weights would hide a missing term.
WEIGHTS = {"jdcl__classification": 0.3, "jdcl__distillation": 0.7, "jdcl__soft_labels": 0.2}


@functools.cache
def build(name: str, **changes):
    """A method for six classes in three tasks, without dropout."""
    off = {"phase1__dropout": 0.0, "phase2__dropout": 0.0, "phase2__groups": 4}
    weights = WEIGHTS if name == "jdcl" else {}
    if name == "guide":
        weights = {"guide__scale": 0.5}
    run = tiny.settings_of(Path("none.npz"), name, **{**off, **weights, **changes})
    return methods.build(run, make_stream(run.stream, placeholder(tiny.CLASSES)).exact())


def noisy(tree, seed=0):
    """Zero kernels would hide a missing term; booleans stay."""
    random = np.random.default_rng(seed)

    def one(leaf):
        if leaf.dtype == bool:
            return leaf
        return jnp.asarray(np.asarray(leaf) + random.normal(scale=0.2, size=leaf.shape), leaf.dtype)

    return jax.tree.map(one, tree)


@functools.cache
def second_task(name: str):
    """`(method, trainable, frozen)` in task 2, after a task 1 that moved everything."""
    method = build(name)
    first, second = method.stream.tasks[:2]
    memory = noisy(jax.jit(method.init)(KEY))
    trainable, _ = method.begin(memory, first, KEY)
    memory = method.end(memory, first, trainable)
    trainable, frozen = method.begin(memory, second, KEY)
    return method, noisy(trainable, 1), frozen


@pytest.fixture(scope="module")
def batch():
    """Two images each of old classes 0, 1 and new classes 2, 3."""
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 1), np.uint8)
    return {"images": jnp.asarray(images), "labels": jnp.array([2, 0, 3, 1], jnp.int32)}


def of_batch(method, batch):
    """Points, images in [-1, 1] and labels, as the loss draws them; n-major."""
    images = to_float(batch["images"].reshape(8, 8, 8, 1))
    points = draw_points(jax.random.split(KEY, 3)[1], images, 4, method.run.flow)
    return points, images, np.tile(batch["labels"], 2)


def slope_of(method, trainable, frozen, batch, progress=0.0):
    """The loss of phase 2 and its gradient."""
    return _slope(method)(trainable, frozen, batch, jnp.float32(progress))


@functools.cache  # of each loss and network one program
def _slope(method):
    return jax.jit(jax.value_and_grad(functools.partial(_loss, method)))


def _loss(method, trainable, frozen, batch, progress):
    return method.loss(2, trainable, frozen, batch, KEY, progress)


def velocity(method, parameters, points, labels):
    apply = _network(method)
    rows = [slice(i, i + 1) for i in range(len(labels))]
    return np.concatenate([apply(parameters, points.x[i], points.t[i], labels[i]) for i in rows])


@functools.cache
def _network(method):
    return jax.jit(lambda p, x, t, labels: method._model(0.0).apply({"params": p}, x, t, labels))


def test_ddgr_adds_the_cross_entropy_over_the_classes_so_far(batch):
    method, trainable, frozen = second_task("ddgr")
    points, images, labels = of_batch(method, batch)
    resnet = jax.jit(method.resnet().apply, static_argnames="train")
    total = 0.0
    v = velocity(method, trainable["model"], points, labels)
    for i, label in enumerate(labels):
        total += np.mean((v[i] - points.velocity[i]) ** 2)
        logits = resnet({"params": trainable["classifier"]}, images[i : i + 1], train=False)[0]
        total -= log_softmax(np.asarray(logits, np.float64)[:4])[label]  # 4 and 5 are to come
    value = jax.jit(functools.partial(_loss, method))(trainable, frozen, batch, jnp.float32(0))
    np.testing.assert_allclose(value, total / 8, rtol=1e-5)


def test_ddgr_samples_are_guided_to_their_class():
    _, trainable, frozen = second_task("ddgr")
    memory, noise, certain = {**trainable, **frozen}, jax.random.normal(KEY, (8, 8, 8, 1)), {}
    for scale in (0.0, 20.0):
        method = build("ddgr", guide__scale=scale)
        parameters = method.class_parameters(memory, 1)
        sample = jax.jit(lambda x, m=method, p=parameters: solve(m.velocity(p), x, m.run.sample)[0])
        logits = method.answers(memory["classifier"], memory["seen"], sample(noise))
        certain[scale] = np.asarray(jax.nn.softmax(logits)[:, 1])
        assert not np.asarray(jax.nn.softmax(logits))[:, 4:].any()
    assert (certain[20.0] > certain[0.0]).all()


@functools.cache
def _slope_of_new(method):
    def log_new(x, generator, classifier, t, label):
        v = method._model(0.0).apply({"params": generator}, x, t, label)
        image = x + (1 - t[0]) * v
        logits = method.resnet().apply({"params": classifier}, image, train=False)[0, :4]
        return jnp.max(jax.nn.log_softmax(logits)[2:4]), v  # 2 and 3 are new

    return jax.jit(jax.value_and_grad(log_new, has_aux=True))


def naive_guided(method, trainable, frozen, noise, labels, scale):
    """Euler steps of one image after the other, v + s (1 - t) / t grad log p(promised image)."""
    slope, networks = _slope_of_new(method), (frozen["generator"], trainable["classifier"])
    steps, images = method.run.sample.num_steps, []
    for i, label in enumerate(labels):
        x = noise[i : i + 1]
        for k in range(steps):
            t = k / steps
            (_, v), gradient = slope(x, *networks, jnp.array([t]), jnp.array([label]))
            x = x + (v + scale * (1 - t) / max(t, 0.05) * gradient) / steps
        images.append(np.clip(np.asarray(x[0]), -1, 1))
    return np.stack(images)


@functools.cache
def _replayed(scale):
    return jax.jit(build("guide", guide__scale=scale).replayed)


def guide_images(method, frozen, batch):
    """What `replayed` reads of a step: the frozen part with its key, and the images of a batch."""
    from flcl.methods.unet_baselines import Images

    points, images, labels = of_batch(method, batch)
    return {**frozen, "key": KEY}, Images(points, images, jnp.asarray(labels), jnp.arange(8))


def test_guide_draws_replay_towards_the_new_classes(batch):
    method, trainable, frozen = second_task("guide")
    fixed, data = guide_images(method, frozen, batch)
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, 3), i) for i in range(8)]
    noise = jnp.stack([jax.random.normal(key, (8, 8, 1)) for key in keys])
    drawn, certain = {}, {}
    for scale in (0.5, 20.0):
        replayed = _replayed(scale)(trainable["classifier"], fixed, data)
        wanted = naive_guided(method, trainable, frozen, noise, data.labels, scale)
        np.testing.assert_allclose(replayed, wanted, atol=1.01 / 127.5)  # one level of uint8
        drawn[scale] = replayed
        certain[scale] = np.mean(method.log_new(trainable["classifier"], frozen, replayed))
    assert certain[20.0] > certain[0.5]


def test_the_classifier_of_guide_learns_from_new_images_and_guided_replay(batch):
    method, trainable, frozen = second_task("guide")
    fixed, data = guide_images(method, frozen, batch)
    replayed = np.asarray(_replayed(method.run.guide.scale)(trainable["classifier"], fixed, data))
    plain = build("generative_replay")
    flow, slopes = slope_of(plain, {"model": trainable["model"]}, {}, batch)
    total = 0.0
    for i, label in enumerate(np.asarray(data.labels)):
        image = np.asarray(data.images)[i] if label in (2, 3) else replayed[i]
        variables = {"params": trainable["classifier"]}
        logits = method.resnet().apply(variables, image[None], train=False)[0]
        total -= log_softmax(np.asarray(logits, np.float64)[:4])[label]
    value, slope = slope_of(method, trainable, frozen, batch, progress=2 / 6)
    np.testing.assert_allclose(value, flow + total / 8, rtol=1e-5)
    # The generator trains as in generative replay; every second step is its own.
    between, none = slope_of(method, trainable, frozen, batch, progress=3 / 6)
    assert between == flow
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none["classifier"]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        slope["model"],
        slopes["model"],
    )


def test_the_classifier_of_guide_rests_between_its_steps():
    """Its optimiser neither moves it nor changes its own averages then."""
    method = build("guide")
    optimizer = method.optimizer(2)
    small = {"model": {"w": jnp.ones(3)}, "classifier": {"w": jnp.ones(3)}}
    state, moved = optimizer.init(small), []
    for _ in range(4):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, small), state, small)
        moved.append(np.abs(updates["classifier"]["w"]).max() > 0)
    assert moved == [True, False, True, False]
    rate = method.run.guide.learning_rate
    np.testing.assert_allclose(updates["classifier"]["w"], 0.0)
    updates, _ = method.optimizer(1).update(small, method.optimizer(1).init(small), small)
    np.testing.assert_allclose(updates["classifier"]["w"], -rate, rtol=1e-4)


def test_jdcl_learns_new_images_and_is_taught_old_ones(batch):
    method, trainable, frozen = second_task("jdcl")
    weights, (points, images, labels) = method.run.jdcl, of_batch(method, batch)
    v = velocity(method, trainable["model"], points, labels)
    teacher = velocity(method, frozen["previous"]["model"], points, labels)
    answers = jax.jit(lambda p, x: method.answers(p, x, 0.0, {}))
    total = 0.0
    for i, label in enumerate(labels):
        logits = np.asarray(answers(trainable, images[i : i + 1])[0], np.float64)[:4]
        if label in (2, 3):
            total += np.mean((v[i] - points.velocity[i]) ** 2)
            total -= weights.classification * log_softmax(logits)[label]
            continue
        old = np.asarray(answers(frozen["previous"], images[i : i + 1])[0], np.float64)[:2]
        total += weights.distillation * np.mean((v[i] - teacher[i]) ** 2)
        total -= weights.soft_labels * softmax(old) @ log_softmax(logits)[:2]
    value = jax.jit(functools.partial(_loss, method))(trainable, frozen, batch, jnp.float32(0))
    np.testing.assert_allclose(value, total / 8, rtol=1e-5)


def test_the_classifier_of_jdcl_reads_the_encoder_and_no_label(batch):
    """Means of every encoder map and of the middle; the decoder has no gradient from it."""
    method, trainable, _ = second_task("jdcl")
    images = of_batch(method, batch)[1]

    def features(model):
        return method._model(0.0).apply({"params": model}, images, jnp.ones(8), pooled=True)

    # One level of eight channels: the input, the block and the middle.
    assert jax.eval_shape(features, trainable["model"]).shape == (8, 3 * 8)
    slope = jax.jit(jax.grad(lambda model: jnp.sum(features(model) ** 2)))(trainable["model"])
    touched = {name for name, part in slope.items() if any(map(np.any, jax.tree.leaves(part)))}
    assert {"input", "encoder_0_0", "middle_0", "middle_1"} <= touched
    assert not touched & {"decoder_0_0", "decoder_0_1", "output", "output_norm", "class"}


def test_soft_labels_of_one_class_are_the_usual_cross_entropy():
    logits = jnp.array([[1.0, 2.0, -jnp.inf], [0.5, -1.0, 3.0]])
    teacher = jnp.where(jnp.array([[True, False, False], [False, False, True]]), 0.0, -jnp.inf)
    expected = [-log_softmax([1.0, 2.0])[0], -log_softmax([0.5, -1.0, 3.0])[2]]
    np.testing.assert_allclose(soft_entropy(logits, teacher), expected, rtol=1e-6)
