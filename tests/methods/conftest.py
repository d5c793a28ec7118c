"""Tiny classifiers, without data."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from flcl import methods
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.methods import base


@pytest.fixture(scope="session")
def build():
    """`build("fmlora", lora__combine="last")`: a method for six classes in three tasks."""

    def make(method="fmlora", **changes):
        return _built(method, tuple(sorted(changes.items())))

    return make


@functools.cache
def _built(name: str, changes: tuple):
    """A method whose memory before the first task is drawn once: all tests begin with one key."""
    run = tiny.classifier_of(Path("none.npz"), name, **dict(changes))
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, normalize="half"))
    method = methods.build(run, make_stream(run.stream, placeholder(tiny.CLASSES)).exact())
    draw = method.init
    first = functools.cache(lambda: draw(jax.random.key(0)))

    def init(key):
        if isinstance(key, jax.core.Tracer):
            return draw(key)
        assert key == jax.random.key(0)
        return jax.tree.map(lambda leaf: leaf, first())  # new dictionaries of the same arrays

    method.init = init
    return method


@pytest.fixture(scope="session")
def images():
    """uint8 [6, 8, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


@pytest.fixture(scope="session")
def moved():
    """A tree with noise added to every floating-point leaf, as training would move it."""

    def move(tree, seed=0, spread=0.1):
        # In NumPy: JAX would compile a program for every shape.
        random = np.random.default_rng(seed)

        def noisy(leaf):
            noise = random.normal(scale=spread, size=leaf.shape)
            return jnp.asarray(np.asarray(leaf) + noise, jnp.float32)

        return jax.tree.map(noisy, tree)

    return move


@pytest.fixture(scope="session")
def learn(moved):
    """`learn(method, memory, task)`: memory after a task that moved at random; also both trees."""

    def one(method, memory, task):
        trainable, frozen = method.begin(memory, task, jax.random.key(task.index))
        if method.preliminary(task) is not None:
            memory, frozen = method.with_losses(memory, frozen, task, [0.5 + 0.1 * task.index])
        if not method.steps(task, 8):
            return method.end(memory, task, trainable), trainable, frozen
        trained = moved(trainable, task.index)
        # Rows of other classes have no gradient: they stay.
        own = np.isin(np.arange(method.stream.capacity), task.labels)
        if "head" in trainable:
            old, new = trainable["head"], trained["head"]
            trained["head"] = {
                "kernel": jnp.where(own[None], new["kernel"], old["kernel"]),
                "bias": jnp.where(own, new["bias"], old["bias"]),
            }
        return method.end(memory, task, trained), trained, frozen

    return one


@pytest.fixture(scope="session")
def calibrated():
    """`calibrated(method, memory, task)`: memory with statistics of random features of a task."""

    def one(method, memory, task, per_class=4):
        generator = np.random.default_rng(task.index)
        labels = np.repeat(task.labels, per_class)
        width = method.run.model.feature_width
        features = generator.normal(size=(len(labels), width)).astype(np.float32)
        features[:, 0] += 3 * labels
        moved = base.Moved(features, features + 0.1) if method.corrects(task) else None
        return method.calibrate(memory, task, features, labels, moved, method.scores)

    return one
