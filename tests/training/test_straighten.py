"""The stage that makes paths straight, against a naive one; and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flcl
from flcl import methods
from flcl.adapters import functional
from flcl.data import loader
from flcl.data.encoded.check import silent
from flcl.data.selection import everything
from flcl.flow.sampler import noise_of
from flcl.methods.base import STRAIGHTENING
from flcl.rng import stream_key
from flcl.runs.opened.run import changed
from flcl.training import straighten
from flcl.training.step import phase_of

KEYS = {"steps": 2, "pairs": 8, "num_steps": 1, "learning_rate": 0.05}
LABELS = (4, 5)  # of task 3


@pytest.fixture(scope="module")
def run(finished):
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def method(run):
    # An average with decay 0 is the last factors.
    settings = changed(run.settings, straighten=KEYS, phase2={"ema_decay": 0.0})
    return methods.shared(settings, run.stream.sized(3))


@pytest.fixture(scope="module")
def after(run, method):
    """The memory after the stage of task 3."""
    mesh, task = run._setup.mesh, run.stream.tasks[2]

    def phase(trainable, frozen):
        return phase_of(method, STRAIGHTENING, trainable, frozen, mesh)

    with jax.set_mesh(mesh):
        return straighten.straightened(method, run._memory(3), task, phase, silent)


def test_the_stage_is_adam_on_the_lines_between_noise_and_its_image(run, method, after):
    memory, settings = run._memory(3), method.run
    model, family = method._model(0.0), settings.adapter.family
    trunk = memory["trunk"]

    def field(factors, x, t):
        kernels = functional.merge(trunk, factors, family)
        return model.apply({"params": kernels}, x, jnp.full(len(x), t))

    solve = jax.jit(lambda factors, x: x + field(factors, x + field(factors, x, 0.0) / 2, 0.5))
    rows = {k: functional.take(memory["bank"], k) for k in LABELS}
    pairs = {}
    for label, factors in rows.items():
        key = stream_key(settings.seed, "pairs", 3)
        noise = noise_of(key, label, np.arange(8), (8, 8, 1))
        pairs[label] = everything(np.stack([noise, solve(factors, noise)], axis=1))

    @jax.jit
    @functools.partial(jax.grad, argnums=0)
    def slope(rows, first, last, t):
        total = 0.0
        for place, factors in enumerate(rows):
            kernels = functional.merge(trunk, factors, family)
            at = t[:, place, None, None, None]
            x = (1 - at) * first[:, place] + at * last[:, place]
            moved = model.apply({"params": kernels}, x, t[:, place])
            total += jnp.mean((moved - (last - first)[:, place]) ** 2) / len(rows)
        return total

    clip = optax.clip_by_global_norm(settings.phase2.clip_norm)
    adam = optax.chain(clip, optax.adam(KEYS["learning_rate"]))
    state = adam.init(rows)
    batches = loader.class_groups(pairs, groups=2, per_group=8, seed=settings.seed, task=3)
    for step in range(2):
        batch = batches[step]
        key = jax.random.fold_in(stream_key(settings.seed, "straighten", 3), step)
        t = jax.random.uniform(jax.random.split(key, 3)[1], (16,)).reshape(8, 2)
        order = batch["labels"].tolist()
        ends = batch["images"][:, :, 0], batch["images"][:, :, 1]
        grads = dict(zip(order, slope([rows[k] for k in order], *ends, t), strict=True))
        updates, state = adam.update(grads, state)
        rows = optax.apply_updates(rows, updates)
    for label, factors in rows.items():
        stored = functional.take(after["bank"], label)
        before = functional.take(memory["bank"], label)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), stored, before)
        assert min(jax.tree.leaves(moved)) > 0.02  # two steps of Adam of up to 0.05
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-3), stored, factors)


def test_all_other_classes_and_the_trunk_keep_their_bits(run, after):
    before = run._memory(3)
    jax.tree.map(np.testing.assert_array_equal, before["trunk"], after["trunk"])
    others = np.setdiff1d(np.arange(run.stream.sized(3).capacity), LABELS)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[others], b[others]),
        before["bank"],
        after["bank"],
    )


def test_pairs_do_not_depend_on_how_samples_are_drawn(run, method):
    """`sample.chunk` may change while a run goes on, so no pair may depend on it."""
    other = methods.shared(changed(method.run, sample={"chunk": 3}), method.stream)
    mesh = run._setup.mesh
    assert straighten.pair_chunk(other, mesh) == straighten.pair_chunk(method, mesh) == 16
