"""Losses of the linear head against naive loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.methods import losses

WIDTH, CLASSES, IMAGES = 5, 4, 6
COMPARED = np.array([True, False, True, True])


@pytest.fixture(scope="module")
def data():
    """Features [6, 5], a head of 4 classes, and labels among the compared classes."""
    generator = np.random.default_rng(0)
    head = {
        "kernel": jnp.asarray(generator.normal(size=(WIDTH, CLASSES)), jnp.float32),
        "bias": jnp.asarray(generator.normal(size=(1, CLASSES)), jnp.float32),
    }
    features = jnp.asarray(generator.normal(size=(IMAGES, WIDTH)), jnp.float32)
    return features, head, jnp.array([0, 2, 3, 0, 2, 3])


def cosine_of(x, y) -> float:
    return float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))


def test_local_is_the_cross_entropy_over_the_compared_classes(data):
    features, head, labels = data
    got = losses.local(head, COMPARED, features, labels)
    for value, x, label in zip(got, np.asarray(features), labels, strict=True):
        logits = {
            j: float(x @ np.asarray(head["kernel"])[:, j] + head["bias"][0, j]) for j in (0, 2, 3)
        }
        want = math.log(sum(map(math.exp, logits.values()))) - logits[int(label)]
        assert value == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize(("scale", "margin"), [(1.0, 0.0), (20.0, 0.0), (5.0, 0.3)])
def test_cosine_is_equation_4_of_cosface(data, scale, margin):
    features, head, labels = data
    got = losses.cosine(head, COMPARED, features, labels, scale, margin)
    for value, x, label in zip(got, np.asarray(features), labels, strict=True):
        cosines = {j: cosine_of(x, np.asarray(head["kernel"])[:, j]) for j in (0, 2, 3)}
        right = math.exp(scale * (cosines.pop(int(label)) - margin))
        want = -math.log(right / (right + sum(math.exp(scale * c) for c in cosines.values())))
        assert value == pytest.approx(want, abs=1e-4)


def test_a_margin_makes_the_loss_larger_and_length_does_not_count(data):
    features, head, labels = data
    plain, harder = (
        losses.cosine(head, COMPARED, features, labels, 5.0, margin) for margin in (0.0, 0.2)
    )
    assert np.all(np.asarray(harder) > np.asarray(plain))
    longer = {**head, "kernel": 7.0 * head["kernel"]}
    again = losses.cosine(longer, COMPARED, 3.0 * features, labels, 5.0, 0.0)
    np.testing.assert_allclose(again, plain, rtol=1e-5)


def test_movement_is_the_mean_square_over_the_coordinates(data):
    features, *_ = data
    got = losses.movement(features, features[::-1])
    for value, x, y in zip(got, np.asarray(features), np.asarray(features)[::-1], strict=True):
        assert value == pytest.approx(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / WIDTH)


def test_steering_is_a_mean_over_pairs_of_one_class_and_of_two(data):
    features, _, labels = data
    same, other = [], []
    for i in range(IMAGES):
        for j in range(IMAGES):
            value = cosine_of(features[i], features[j])
            if i != j and labels[i] == labels[j]:
                same.append(1 - value)
            elif labels[i] != labels[j]:
                other.append(max(0.0, value - 0.1))
    want = np.mean(same) + 1.5 * np.mean(other)
    assert losses.steering(features, labels, 0.1, 1.5) == pytest.approx(want, abs=1e-5)
    assert losses.steering(features[:1], labels[:1], 0.1, 1.5) == 0.0


def test_normalised_logits_are_divided_by_the_mean_length_over_tasks(data):
    features, head, _ = data
    logits = np.asarray(features @ head["kernel"])
    groups = np.array([[True, False, True, False], [False, False, False, True], [False] * 4])
    got = losses.normalised(logits, groups, 0.1)
    for row, values in zip(got, logits, strict=True):
        lengths = [math.sqrt(values[0] ** 2 + values[2] ** 2) + 1e-7, abs(values[3]) + 1e-7]
        np.testing.assert_allclose(row, values / (sum(lengths) / 2) / 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "steering", "normalised"])
def test_gradients_are_finite_where_there_is_no_direction(data, name):
    features, head, labels = data
    zero = jnp.zeros_like(features)

    def value(x):
        if name == "cosine":
            return losses.cosine(head, COMPARED, x, labels, 20.0, 0.1).sum()
        if name == "steering":
            return losses.steering(x, labels, 0.1, 1.0)
        return losses.normalised(x[:, :CLASSES], np.ones((1, CLASSES), bool), 0.1).sum()

    assert np.isfinite(np.asarray(jax.grad(value)(zero))).all()
