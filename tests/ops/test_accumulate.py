"""A loss taken part by part against the same loss of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.ops import accumulate


@pytest.mark.parametrize(("groups", "parts"), [(1, 1), (1, 4), (3, 1), (3, 2)])
def test_value_and_gradient_are_those_of_the_batch(groups, parts):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(4 * groups, 5)), jnp.float32)  # 4 images a class
    shared = {"w": jnp.asarray(generator.normal(size=5), jnp.float32)}
    rows = jnp.asarray(generator.normal(size=(groups, 5)), jnp.float32)

    def part(shared, own, data):
        return jnp.mean(jnp.sin(data * shared["w"][None] + own) ** 2)

    def in_parts(shared, rows):
        own = accumulate.repeat_rows(rows, parts)
        return 3 * accumulate.mean_over_parts(
            part, shared, own, accumulate.divide(x, groups, parts)
        )

    def naive(shared, rows):
        total = 0.0
        for i in range(len(x)):  # image i * G + g belongs to class g
            total += jnp.mean(jnp.sin(x[i] * shared["w"] + rows[i % groups]) ** 2)
        return 3 * total / len(x)

    np.testing.assert_allclose(in_parts(shared, rows), naive(shared, rows), rtol=1e-6)
    got = jax.jit(jax.value_and_grad(in_parts, (0, 1)))(shared, rows)
    want = jax.value_and_grad(naive, (0, 1))(shared, rows)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)


def test_nothing_needs_to_be_shared_or_owned():
    data = jnp.arange(6.0).reshape(3, 2)
    value = accumulate.mean_over_parts(lambda shared, own, data: data.sum(), (), (), data)
    np.testing.assert_allclose(value, 5.0)


def test_devices_keep_their_images():
    """Of 2 classes on 2 devices each has the first or the last 4 of 8 images, in every part."""
    numbers = np.asarray(accumulate.divide(jnp.arange(16), 2, 2))
    assert numbers.shape == (4, 4)
    classes = numbers % 2
    assert (classes == classes[:, :1]).all()
    for part in numbers:
        assert (part[:2] < 8).all() and (part[2:] >= 8).all()
    assert sorted(numbers.ravel()) == list(range(16))


@pytest.mark.parametrize(
    ("images", "pixels", "parts"),
    [(64, 1024, 4), (40, 1024, 4), (20, 1024, 2), (64, 256, 1), (7, 4096, 7), (1, 10**6, 1)],
)
def test_parts_are_few_and_equal(images, pixels, parts):
    assert accumulate.parts_of(images, pixels) == parts
