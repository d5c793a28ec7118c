"""Every head: statistics add up in any order, what a task stores puts it back, scores of a loop."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from flcl.heads import HEADS, base, moments
from flcl.heads.base import Batch, Move, mask_unseen
from flcl.heads.lda import LDA
from flcl.heads.ridge import Ridge
from flcl.settings import bridge
from flcl.settings.classifier.heads import HEADS as NAMES

WIDTH, CAPACITY = 5, 6
LABELS = np.repeat([0, 1, 2, 3], 10)
SHIFT = Move(np.zeros((2, WIDTH)), np.ones((2, WIDTH)), "shift", 0.1)


def run_of(**changes):
    """Settings of a classifier; `changes` are dotted keys with `__` for the dot."""
    config = bridge.defaults("fmlora")
    config.data.image_size = 16
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return bridge.freeze(config)


def built(name, slots=None, **changes):
    """The head `name`."""
    return HEADS[name](run_of(**changes), WIDTH, CAPACITY, slots)


VARIANTS = {
    **{name: {} for name in NAMES},
    "projected": {"ridge__width": 12},
    "plain": {"ridge__width": 12, "ridge__centred": False, "ridge__unit": False},
}


@pytest.fixture(params=sorted(VARIANTS))
def variant(request):
    """A head and its changed keys."""
    return ("ridge" if request.param not in NAMES else request.param), VARIANTS[request.param]


@pytest.fixture(scope="module")
def features():
    """Features [40, 5] float32 of four classes with one shared, round covariance."""
    generator = np.random.default_rng(0)
    turn = generator.normal(size=(WIDTH, WIDTH))
    centres = 2.0 * generator.normal(size=(4, WIDTH))
    return (generator.normal(size=(40, WIDTH)) @ turn + centres[LABELS]).astype(np.float32)


def start(head):
    """The states before the first task, in float64."""
    key = jax.random.key(0)
    return {s.key: base.on_host(s.init(key)) for s in head.statistics}


def added(head, states, features, labels, slot=0):
    """The states with some images."""
    batch = Batch(features, labels, slot)
    return {s.key: s.add(states[s.key], batch) for s in head.statistics}


def filled(head, features, labels=LABELS):
    """The states with all images."""
    return added(head, start(head), features, labels)


def scores(head, states, features, by_domain=False):
    """Scores [N, C] in NumPy."""
    return np.asarray(head.scores(head.solve(states, by_domain), features))


def test_the_settings_know_every_head():
    assert tuple(HEADS) == NAMES


def test_what_is_taken_puts_the_classes_back(variant, features):
    head = built(variant[0], **variant[1])
    labels = np.array([1, 3])
    rows = np.isin(LABELS, labels)
    key = jax.random.key(1)
    for statistic in head.statistics:
        empty = statistic.init(key)
        batch = Batch(features[rows], LABELS[rows])
        state = base.in_memory(statistic.add(base.on_host(empty), batch))
        taken = statistic.take(state, labels, 0, everything=False)
        jax.tree.map(np.testing.assert_array_equal, statistic.put(empty, labels, 0, taken), state)
        whole = statistic.take(state, labels, 0, everything=True)
        jax.tree.map(np.testing.assert_array_equal, statistic.put(empty, labels, 0, whole), state)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_tasks_in_any_order_give_what_all_images_at_once_give(variant, features, order):
    head = built(variant[0], **variant[1])
    whole, states = filled(head, features), start(head)
    for label in order:
        rows = LABELS == label
        states = added(head, states, features[rows], LABELS[rows])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-10), states, whole
    )
    np.testing.assert_array_equal(scores(head, states, features), scores(head, whole, features))


@pytest.mark.parametrize("name", ["class_mean", "lda", "ridge"])
def test_a_class_that_comes_in_pieces_is_merged_exactly(name, features):
    head = built(name)
    whole, states = filled(head, features), start(head)
    for piece in (slice(5, 40, 3), slice(0, 5), slice(6, 40, 3), slice(7, 40, 3)):
        states = added(head, states, features[piece], LABELS[piece])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-10), states, whole
    )


def test_a_class_that_is_forgotten_leaves_no_row_and_moves_no_other(variant, features):
    head = built(variant[0], slots=2, **variant[1])
    for statistic in head.statistics:
        state = base.on_host(statistic.init(jax.random.key(1)))
        state = base.in_memory(statistic.add(state, Batch(features, LABELS, 1)))
        left = statistic.forget(state, 2)
        for name, old in state.items():
            old, new = np.asarray(old), np.asarray(left[name])
            shared = name in ("scatter", "weight")
            # The class is the first axis after the slots; of a kernel, the last.
            axis = {"kernel": 1, "bias": 0}.get(name, 1 if old.shape[:1] == (2,) else 0)
            old, new = (each if shared else np.moveaxis(each, axis, 0) for each in (old, new))
            gone = [] if shared else [2]
            np.testing.assert_array_equal(np.delete(new, gone, 0), np.delete(old, gone, 0))
            if not shared:
                # Of images that the scatter still has, the number stays.
                np.testing.assert_array_equal(new[2], -old[2] if name == "count" else 0 * old[2])
        jax.tree.map(np.testing.assert_array_equal, statistic.forget(left, 2), left)


@pytest.mark.parametrize("name", ["class_mean", "lda", "gaussian"])
def test_a_forgotten_class_changes_no_difference_between_others(name, features):
    """The covariance keeps its images and its degrees of freedom."""
    head, others = built(name), [0, 1, 3]
    states = base.in_memory(filled(head, features))
    left = {each.key: each.forget(states[each.key], 2) for each in head.statistics}
    states, left = base.on_host(states), base.on_host(left)
    old, new = (scores(head, each, features)[:, others] for each in (states, left))
    if name == "class_mean":
        np.testing.assert_array_equal(new, old)
    np.testing.assert_allclose(new - new[:, :1], old - old[:, :1], rtol=1e-3, atol=1e-3)
    moved = {each.key: each.moved(left[each.key], SHIFT) for each in head.statistics}
    assert not moved["means"]["sum"][2].any()


def test_ridge_keeps_only_the_spread_of_a_forgotten_class(features):
    """As if its images were around the mean of the others, and of no class."""
    head, kept = built("ridge", ridge__penalty=0.7), LABELS != 2
    state = base.in_memory(filled(head, features)["means"])
    left = {"means": base.on_host(head.moments.forget(state, 2))}
    x, y = features.astype(float), np.eye(CAPACITY)[LABELS] * kept[:, None]
    centred = x - x[kept].mean(axis=0)
    centred[~kept] = x[~kept] - x[~kept].mean(axis=0)
    target = (y - y[kept].mean(axis=0)) * kept[:, None]
    gram = centred.T @ centred
    weight = 0.7 * np.trace(gram) / WIDTH
    kernel = np.linalg.solve(gram + weight * np.eye(WIDTH), centred.T @ target)
    want = (x - x[kept].mean(axis=0)) @ kernel + y[kept].mean(axis=0)
    result = scores(head, left, features)
    np.testing.assert_allclose(result[:, [0, 1, 3]], want[:, [0, 1, 3]], rtol=1e-3, atol=1e-4)


def test_scores_have_a_finite_column_for_every_class_that_may_come(variant, features):
    head = built(variant[0], **variant[1])
    result = scores(head, filled(head, features), features)
    assert result.shape == (40, CAPACITY) and np.isfinite(result).all()
    assert np.isfinite(scores(head, start(head), features)).all()


def test_features_of_another_width_are_refused_while_tracing(variant, features):
    head = built(variant[0], **variant[1])
    part = head.solve(filled(head, features), False)
    with pytest.raises((AssertionError, TypeError)):
        jax.jit(head.scores)(part, features[:, :3])


def test_linear_scores_are_a_product_and_a_sum(features):
    head = built("linear")
    states = start(head)
    states["head"] |= {"bias": np.arange(CAPACITY, dtype=np.float64)}
    want = features.astype(float) @ states["head"]["kernel"] + np.arange(CAPACITY)
    np.testing.assert_allclose(scores(head, states, features), want, rtol=1e-5, atol=1e-6)


def test_class_mean_scores_are_cosines_with_the_means(features):
    head = built("class_mean")
    result = scores(head, filled(head, features), features)
    for label in range(4):
        mean = features[LABELS == label].astype(float).mean(axis=0)
        cosine = features @ mean / (np.linalg.norm(features, axis=1) * np.linalg.norm(mean))
        np.testing.assert_allclose(result[:, label], cosine, atol=1e-6)
    np.testing.assert_array_equal(result[:, 4:], 0.0)  # no image yet


def shared_covariance(features, shrinkage=0.3):
    """The shrunk shared covariance by a loop over images."""
    total = np.zeros((WIDTH, WIDTH))
    for x, label in zip(features.astype(float), LABELS, strict=True):
        delta = x - features[LABELS == label].astype(float).mean(axis=0)
        total += np.outer(delta, delta)
    covariance = total / (len(LABELS) - 4)
    mean_variance = np.trace(covariance) / WIDTH
    return (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(WIDTH)


def test_lda_is_the_difference_of_mahalanobis_distances(features):
    inverse = np.linalg.inv(shared_covariance(features))
    head = built("lda")
    result = scores(head, filled(head, features), features)
    means = [features[LABELS == label].astype(float).mean(axis=0) for label in range(4)]
    distances = np.array([[(x - m) @ inverse @ (x - m) for m in means] for x in features])
    want = -(distances - distances[:, :1]) / 2
    np.testing.assert_allclose(result[:, :4] - result[:, :1], want, rtol=1e-3, atol=1e-3)
    assert (result[:, 4:] == np.finfo(np.float32).min).all()


def test_one_image_of_each_class_gives_the_nearest_mean(features):
    rows = np.array([0, 10, 20, 30])
    head = built("lda")
    states = filled(head, features[rows], LABELS[rows])
    distance = np.square(features[:, None] - features[rows][None]).sum(axis=-1)
    answers = scores(head, states, features)[:, :4].argmax(axis=1)
    np.testing.assert_array_equal(answers, distance.argmin(axis=1))


def test_ridge_solves_the_centred_normal_equations(features):
    head = built("ridge", ridge__penalty=0.7)
    x = features.astype(float)
    y = np.eye(CAPACITY)[LABELS]
    centred, target = x - x.mean(axis=0), y - y.mean(axis=0)
    weight = 0.7 * np.trace(centred.T @ centred) / WIDTH
    stacked = np.concatenate([centred, np.sqrt(weight) * np.eye(WIDTH)])
    wanted = np.concatenate([target, np.zeros((WIDTH, CAPACITY))])
    kernel = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    want = centred @ kernel + y.mean(axis=0)
    result = scores(head, filled(head, features), features)
    np.testing.assert_allclose(result, want, rtol=1e-4, atol=1e-5)


def test_ranpac_is_the_ridge_on_random_features_with_the_weight_of_its_rule(features):
    head = built("ridge", **VARIANTS["plain"], ridge__rule="split")
    assert isinstance(head, Ridge)
    lifted = np.maximum(features.astype(float) @ head.lift.matrix, 0)
    y = np.eye(CAPACITY)[LABELS]
    second = np.arange(40) % 5 == 4

    def kernel(rows, weight):
        system = lifted[rows].T @ lifted[rows] + weight * np.eye(12)
        return np.linalg.solve(system, lifted[rows].T @ y[rows])

    grid = [10.0**k for k in range(-8, 10)]
    errors = [np.square(lifted[second] @ kernel(~second, w) - y[second]).sum() for w in grid]
    weight = grid[int(np.argmin(errors))]
    states = filled(head, features)
    assert float(states["ridge_weight"]["weight"]) == weight
    result = scores(head, states, features)
    want = lifted @ kernel(slice(None), weight)
    np.testing.assert_allclose(result, want, rtol=1e-2, atol=1e-3)


def test_random_features_follow_from_the_seed_and_ignore_the_length_of_an_image(features):
    lift = built("ridge", ridge__width=12).lift
    np.testing.assert_allclose(lift(features), lift(3 * features), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(lift.matrix, built("ridge", ridge__width=12).lift.matrix)
    other = HEADS["ridge"](run_of(seed=1, ridge__width=12), WIDTH, CAPACITY, None).lift
    assert not np.array_equal(lift.matrix, other.matrix)


def test_gaussian_scores_are_log_densities(features):
    shared = shared_covariance(features)
    head = built("gaussian", gaussian__weight=0.4)
    result = scores(head, filled(head, features), features)[:, :4]
    want = np.zeros((40, 4))
    for label in range(4):
        rows = features[LABELS == label].astype(float)
        covariance = 0.6 * shared + 0.4 * np.cov(rows.T)
        delta = features - rows.mean(axis=0)
        mahalanobis = np.einsum("bi,ij,bj->b", delta, np.linalg.inv(covariance), delta)
        want[:, label] = -(mahalanobis + np.linalg.slogdet(covariance)[1]) / 2
    np.testing.assert_allclose(result - result[:, :1], want - want[:, :1], rtol=2e-3, atol=2e-3)


def test_gaussian_keeps_the_largest_axes_of_a_class(features):
    head = built("gaussian", gaussian__rank=2)
    axes = filled(head, features)["covariances"]["axes"][0]
    rows = features[LABELS == 1].astype(float)
    values, vectors = np.linalg.eigh(9 * np.cov(rows.T))
    want = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
    np.testing.assert_allclose(axes[1].T @ axes[1], want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["class_mean", "lda", "gaussian"])
def test_with_domains_the_best_mean_of_a_class_answers(name, features):
    head = built(name, slots=2, gaussian__rank=WIDTH)
    moved = features + np.float32(7)
    states = added(head, start(head), features, LABELS, slot=0)
    states = added(head, states, moved, LABELS, slot=1)
    both = scores(head, states, np.concatenate([features, moved]), by_domain=True)
    # Four classes in two domains are eight classes whose scores are compared by pairs.
    wide = HEADS[name](run_of(gaussian__rank=WIDTH), WIDTH, 8, None)
    eight = added(wide, start(wide), features, LABELS)
    eight = added(wide, eight, moved, LABELS + 4)
    want = scores(wide, eight, np.concatenate([features, moved])).reshape(80, 2, 4).max(axis=1)
    np.testing.assert_allclose(both[:, :4], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["class_mean", "lda", "ridge", "gaussian"])
def test_one_mean_of_a_class_over_domains_is_that_of_all_its_images(name, features):
    changes = {"gaussian__rank": WIDTH}
    head, plain = built(name, slots=2, **changes), built(name, **changes)
    moved = features + np.float32(7)
    states = added(head, start(head), features, LABELS, slot=0)
    states = added(head, states, moved, LABELS, slot=1)
    every = np.concatenate([features, moved])
    whole = filled(plain, every, np.concatenate([LABELS, LABELS]))
    np.testing.assert_allclose(
        scores(head, states, every), scores(plain, whole, every), rtol=1e-4, atol=1e-4
    )


def test_heads_share_statistics_and_the_richer_one_is_kept():
    heads = {name: built(name) for name in ("class_mean", "lda", "ridge", "gaussian")}
    shared = base.joined(heads)
    assert set(shared) == {"means", "covariances"}
    assert shared["means"].scatter and not heads["class_mean"].statistics[0].scatter
    assert set(base.joined({"class_mean": heads["class_mean"]})["means"].init(None)) == {
        "sum",
        "count",
    }


def test_a_wide_gram_matrix_on_the_device_equals_that_of_the_host(monkeypatch):
    values = np.random.default_rng(0).normal(size=(37, 8))
    want = values.T @ values
    monkeypatch.setattr(moments, "_HOST_WIDTH", 4)
    monkeypatch.setattr(moments, "_ROWS", 16)
    np.testing.assert_allclose(moments.gram(values), want, rtol=1e-5, atol=1e-5)


def test_lda_memory_is_that_of_the_published_size():
    # ViT-B/16: 2.4 MB once and 3 KB for each class.
    run = types.SimpleNamespace(heads=types.SimpleNamespace(shrinkage=0.3))
    moments_of = LDA(run, 768, 100, None).moments
    assert moments_of.bytes_per_class() == 4 * 769
    assert dataclasses.asdict(moments_of)["scatter"] and 4 * 768**2 == 2_359_296


def test_an_unseen_class_is_never_the_answer():
    logits = np.array([[3.0, 1.0, 9.0]], np.float32)
    masked = np.asarray(mask_unseen(logits, np.array([True, True, False])))
    assert masked.argmax() == 0 and masked[0, 2] == -np.inf
