"""Every head: what a task stores puts it back, statistics add up, scores are those of a loop."""

import jax
import numpy as np
import pytest

from flcl.heads import HEADS
from flcl.heads.base import mask_unseen

WIDTH, CAPACITY = 5, 6


@pytest.fixture(params=sorted(HEADS))
def head(request):
    """Each head."""
    return HEADS[request.param]


@pytest.fixture(scope="module")
def examples():
    """Features [40, 5] float32 of four classes, and labels."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 10)
    return generator.normal(size=(40, WIDTH)).astype(np.float32) + labels[:, None], labels


def filled(head, examples):
    """A head that has seen all examples; its trained numbers are random."""
    part = head.init(jax.random.key(0), WIDTH, CAPACITY)
    return head.fit(part, *examples)


def test_what_is_taken_puts_the_classes_back_and_moves_no_other(head, examples):
    part = filled(head, examples)
    labels = np.array([1, 3])
    other = head.init(jax.random.key(1), WIDTH, CAPACITY)
    put = head.put(other, labels, head.take(part, labels))
    jax.tree.map(np.testing.assert_array_equal, head.take(put, labels), head.take(part, labels))
    rest = np.array([0, 2, 4, 5])
    jax.tree.map(np.testing.assert_array_equal, head.take(put, rest), head.take(other, rest))


def test_tasks_in_any_order_give_what_all_images_at_once_give(head, examples):
    features, labels = examples
    start, whole = head.init(jax.random.key(0), WIDTH, CAPACITY), filled(head, examples)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        part = start
        for label in order:
            rows = labels == label
            part = head.fit(part, features[rows], labels[rows])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), part, whole)


def test_scores_have_a_column_for_every_class_that_may_come(head, examples):
    scores = np.asarray(head.scores(filled(head, examples), examples[0]))
    assert scores.shape == (40, CAPACITY) and np.isfinite(scores).all()


def test_linear_scores_are_a_product_and_a_sum(examples):
    part = filled(HEADS["linear"], examples) | {"bias": np.arange(CAPACITY, dtype=np.float32)}
    want = examples[0].astype(float) @ np.asarray(part["kernel"], float) + np.arange(CAPACITY)
    np.testing.assert_allclose(HEADS["linear"].scores(part, examples[0]), want, rtol=1e-5)


def test_class_mean_scores_are_cosines_with_the_means(examples):
    features, labels = examples
    scores = HEADS["class_mean"].scores(filled(HEADS["class_mean"], examples), features)
    for label in range(4):
        mean = features[labels == label].astype(float).mean(axis=0)
        cosine = features @ mean / (np.linalg.norm(features, axis=1) * np.linalg.norm(mean))
        np.testing.assert_allclose(scores[:, label], cosine, atol=1e-6)
    np.testing.assert_array_equal(scores[:, 4:], 0.0)  # no image yet


def test_class_means_count_every_image(examples):
    part = filled(HEADS["class_mean"], examples)
    np.testing.assert_array_equal(part["count"], [10, 10, 10, 10, 0, 0])
    np.testing.assert_allclose(part["sum"][2], examples[0][examples[1] == 2].sum(axis=0), rtol=1e-5)


def test_features_of_another_width_are_refused_while_tracing(head, examples):
    with pytest.raises(AssertionError):
        jax.jit(head.scores)(filled(head, examples), examples[0][:, :3])


def test_an_unseen_class_is_never_the_answer():
    logits = np.array([[3.0, 1.0, 9.0]], np.float32)
    masked = np.asarray(mask_unseen(logits, np.array([True, True, False])))
    assert masked.argmax() == 0 and masked[0, 2] == -np.inf
