"""Features drawn from Gaussians: their moments are those of the statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.heads.base import Batch, in_memory, on_host
from flcl.heads.drawn import Drawn

WIDTH, CAPACITY, COUNT = 3, 5, 20_000


class Run:
    """The keys that `Drawn` reads."""

    heads = settings.ClassifierRun.__dataclass_fields__["heads"].default_factory(shrinkage=0.1)
    gaussian = settings.ClassifierRun.__dataclass_fields__["gaussian"].default_factory(rank=8)


def filled(covariance, slots=None):
    """A `Drawn`, the memory after two tasks of classes 0, 1 and 3, and their features by class."""
    drawn = Drawn(Run, WIDTH, CAPACITY, slots, covariance)
    memory = {s.key: s.init(jax.random.key(0)) for s in drawn.statistics}
    generator, images = np.random.default_rng(0), {}
    for slot, classes in enumerate(((0, 1), (3,))):
        labels = np.repeat(classes, 7)
        skew = generator.normal(size=(WIDTH, WIDTH))
        features = (generator.normal(size=(len(labels), WIDTH)) @ skew).astype(np.float32)
        features += 5 * labels[:, None]
        batch = Batch(features, labels, slot if slots else 0)
        memory = {s.key: in_memory(s.add(on_host(memory[s.key]), batch)) for s in drawn.statistics}
        images |= {label: features[labels == label].astype(np.float64) for label in classes}
    return drawn, memory, images


@pytest.mark.parametrize("slots", [None, 2])
@pytest.mark.parametrize("covariance", ["shared", "class"])
def test_moments_of_drawn_features(covariance, slots):
    drawn, memory, images = filled(covariance, slots)
    part = jax.jit(drawn.solve)(memory)
    features, entries = drawn.draw(part, jax.random.key(1), COUNT)
    labels = np.asarray(drawn.labels(entries))
    assert set(labels.tolist()) == {0, 1, 3}
    scatter = sum(np.cov(v.T, bias=True) * len(v) for v in images.values())
    shared = scatter / (sum(map(len, images.values())) - len(images))
    shared = 0.9 * shared + 0.1 * np.trace(shared) / WIDTH * np.eye(WIDTH)
    for label, values in images.items():
        rows = np.asarray(features)[labels == label]
        assert len(rows) == pytest.approx(COUNT / 3, rel=0.1)
        np.testing.assert_allclose(rows.mean(axis=0), values.mean(axis=0), atol=0.2)
        want = shared if covariance == "shared" else np.cov(values.T) + 1e-4 * np.eye(WIDTH)
        np.testing.assert_allclose(np.cov(rows.T), want, atol=0.08 * np.abs(want).max())


def test_without_variance_the_shared_covariance_is_that_of_the_lda_head():
    drawn, memory, _ = filled("shared")
    memory["means"]["scatter"] = jnp.zeros((WIDTH, WIDTH))
    np.testing.assert_allclose(drawn.solve(memory)["factor"], np.eye(WIDTH))
