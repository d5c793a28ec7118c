import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.evaluate import recipe
from flcl.ops.pixels import to_float


def test_learning_rate_is_a_cosine_in_traced_steps():
    rate = jax.jit(lambda step, total: recipe.learning_rate(0.1, step, total))
    got = [float(rate(step, 8)) for step in range(9)]
    wanted = [0.1 * np.cos(np.pi * step / 16) ** 2 for step in range(9)]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-8)
    assert rate._cache_size() == 1


def test_optimizer_is_plain_sgd_with_momentum_and_decay_on_kernels():
    params = {"layer": {"kernel": jnp.array([2.0, -4.0]), "bias": jnp.array([2.0])}}
    grads = {"layer": {"kernel": jnp.array([1.0, 1.0]), "bias": jnp.array([1.0])}}
    optimizer = recipe.optimizer(0.5)
    first, state = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(first["layer"]["kernel"], [1 + 0.5 * 2, 1 - 0.5 * 4])
    np.testing.assert_allclose(first["layer"]["bias"], [1])
    second, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(second["layer"]["kernel"], [1.9 * 2, 1.9 * -1], rtol=1e-6)
    np.testing.assert_allclose(second["layer"]["bias"], [1.9], rtol=1e-6)


def test_augment_makes_crops_and_flips_and_nothing_else():
    image = np.random.default_rng(0).integers(1, 256, (5, 4, 2), dtype=np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    crops = [padded[y : y + 5, x : x + 4] for y in range(5) for x in range(5)]
    possible = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    assert len(possible) == 50
    images = jnp.tile(jnp.asarray(image)[None], (800, 1, 1, 1))
    got = np.asarray(recipe.augment(jax.random.key(0), images, crop=2, flip=True))
    assert got.dtype == np.uint8
    assert {one.tobytes() for one in got} == possible


def test_augment_switches():
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 3, 1), dtype=np.uint8)
    key = jax.random.key(1)
    off = recipe.augment(key, jnp.asarray(images), crop=0, flip=False)
    np.testing.assert_array_equal(off, images)
    flipped = np.asarray(recipe.augment(key, jnp.asarray(images), crop=0, flip=True))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored | same).all() and mirrored.any() and same.any()


def test_scaling_covers_minus_one_to_one():
    got = to_float(jnp.array([0, 255], jnp.uint8))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [-1, 1], atol=1e-7)


def test_masked_loss_is_the_loss_of_the_seen_classes_alone():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    seen = np.array([True, False, True, True, False])
    labels = np.array([0, 2, 3, 3, 2, 0])
    kept = np.asarray(logits, np.float64)[:, seen]
    position = np.cumsum(seen)[labels] - 1
    chances = np.exp(kept) / np.exp(kept).sum(1, keepdims=True)
    wanted = -np.log(chances[np.arange(6), position]).mean()
    loss, grad = jax.value_and_grad(recipe.masked_loss)(logits, labels, seen)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert np.isfinite(grad).all() and (np.asarray(grad)[:, ~seen] == 0).all()
    assert (np.asarray(grad)[:, seen] != 0).all()


def test_the_order_of_the_judge_is_its_own_random_stream():
    same, seed, name = (
        recipe.batch_order(*words, 100).between(0, 16) for words in ((1, "a"), (2, "a"), (1, "b"))
    )
    np.testing.assert_array_equal(same, recipe.batch_order(1, "a", 100).between(0, 16))
    assert (same != seed).any() and (same != name).any()
