"""Old statistics follow a network that moves: known maps are undone, no move changes nothing."""

import numpy as np
import pytest
from heads.test_heads import CAPACITY, LABELS, WIDTH, added, built, scores, start

from flcl.heads import base, drift
from flcl.heads.base import Batch, Move


@pytest.fixture(scope="module")
def images():
    """Features float64 [60, 5] of one task's images, and a map W, b."""
    generator = np.random.default_rng(1)
    weight = np.eye(WIDTH) + 0.3 * generator.normal(size=(WIDTH, WIDTH))
    return generator.normal(size=(60, WIDTH)), weight, generator.normal(size=WIDTH)


def test_a_known_affine_map_is_found(images):
    before, weight, shift = images
    found = drift.fit(before, before @ weight + shift, "linear", 1e-10)
    np.testing.assert_allclose(found.weight, weight, atol=1e-8)
    np.testing.assert_allclose(found.shift, shift, atol=1e-8)


def test_a_large_ridge_keeps_the_identity_and_moves_the_mean(images):
    before, weight, shift = images
    found = drift.fit(before, before @ weight + shift, "linear", 1e9)
    np.testing.assert_allclose(found.weight, np.eye(WIDTH), atol=1e-6)
    change = (before @ weight + shift).mean(axis=0) - before.mean(axis=0)
    np.testing.assert_allclose(found.shift, change, atol=1e-5)


def test_fewer_images_than_features_solve_the_same_system(images):
    before, weight, _ = images
    some = before[:4]
    found = drift.fit(some, some @ weight, "linear", 0.1)
    x, y = some - some.mean(axis=0), (some - some.mean(axis=0)) @ weight
    system = x.T @ x + 0.1 * np.square(x).sum() / WIDTH * np.eye(WIDTH)
    want = np.eye(WIDTH) + np.linalg.solve(system, x.T @ (y - x))
    np.testing.assert_allclose(found.weight, want, atol=1e-10)


@pytest.mark.parametrize(("count", "linear"), [(9, False), (10, True)])
def test_auto_needs_twice_as_many_images_as_features(images, count, linear):
    before, weight, _ = images
    found = drift.fit(before[:count], before[:count] @ weight, "auto", 0.1)
    assert (found.weight is not None) == linear


@pytest.mark.parametrize("correction", ["auto", "shift", "linear"])
def test_no_move_changes_no_bit(images, correction):
    assert drift.fit(images[0], images[0].copy(), correction, 0.1) is None
    assert drift.fit(images[0], images[0] + 1, "none", 0.1) is None


VARIANTS = {"class_mean": {}, "lda": {}, "ridge": {}, "gaussian": {"gaussian__rank": WIDTH}}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("slots", [None, 2])
def test_corrected_statistics_are_those_of_the_new_features(images, name, slots):
    head = built(name, slots, **VARIANTS[name])
    before, weight, shift = images
    old = before[:40].astype(np.float32)
    new = (old.astype(float) @ weight + shift).astype(np.float32)
    current = before[40:].astype(np.float32)
    moved = (current.astype(float) @ weight + shift).astype(np.float32)
    states, move = added(head, start(head), old, LABELS), Move(current, moved, "linear", 1e-9)
    corrected = {s.key: s.moved(states[s.key], move) for s in head.statistics}
    want = added(head, start(head), new, LABELS)
    np.testing.assert_allclose(
        scores(head, corrected, moved)[:, :4], scores(head, want, moved)[:, :4],
        rtol=2e-3, atol=2e-3,
    )  # fmt: skip
    stale = scores(head, states, moved)[:, :4]
    assert np.abs(stale - scores(head, want, moved)[:, :4]).max() > 0.05


def test_a_shift_moves_the_means_and_keeps_the_scatter(images):
    head = built("lda")
    features = images[0][:40].astype(np.float32)
    states = added(head, start(head), features, LABELS)
    move = Move(features, features + np.float32(2), "shift", 0.1)
    moved = head.moments.moved(states["means"], move)
    np.testing.assert_array_equal(moved["scatter"], states["means"]["scatter"])
    np.testing.assert_allclose(
        moved["sum"][:4] / 10, states["means"]["sum"][:4] / 10 + 2, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(moved["sum"][4:], 0)  # classes without images stay without


def test_the_map_of_random_features_is_fitted_among_them(images):
    head = built("ridge", ridge__width=12)
    features = images[0].astype(np.float32)
    states = added(head, start(head), features[:40], LABELS)
    move = Move(features, features + np.float32(1), "shift", 0.1)
    moved = head.moments.moved(states["projected"], move)
    change = head.lift(features + np.float32(1)).mean(0) - head.lift(features).mean(0)
    want = states["projected"]["sum"][:4] + 10 * change.astype(float)
    np.testing.assert_allclose(moved["sum"][:4], want, rtol=1e-4, atol=1e-4)


def test_batches_of_two_tasks_compose(images):
    """Two moves after one another are the product of their maps."""
    head = built("lda")
    before, weight, shift = images
    old = before[:40].astype(np.float32)
    second = np.eye(WIDTH)[::-1] * 1.5
    first_features = before @ weight + shift
    second_features = first_features @ second
    state = base.on_host(added(head, start(head), old, LABELS)["means"])
    for old_features, new_features in ((before, first_features), (first_features, second_features)):
        state = head.moments.moved(state, Move(old_features, new_features, "linear", 1e-12))
    new = (old.astype(float) @ weight + shift) @ second
    want = head.moments.add(start(head)["means"], Batch(new, LABELS))
    np.testing.assert_allclose(state["sum"], want["sum"], atol=1e-5)
    np.testing.assert_allclose(state["scatter"], want["scatter"], atol=1e-5)
    assert len(state["count"]) == CAPACITY
