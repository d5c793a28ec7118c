"""The train step on one and on several devices, with and without sharded parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from flcl import methods
from flcl.cost import hlo
from flcl.data import loader
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.ops import accumulate
from flcl.rng import stream_key
from flcl.runs.setup import prepare
from flcl.training import step as steps

STEPS = 4
DROPOUT = {"phase1__dropout": 0.3}  # it follows the image, however a batch is divided


@pytest.fixture(scope="module")
def setup(data):
    """A tiny run whose second task trains factors only; classes of a batch take turns."""
    return prepare(tiny.settings_of(data, adapter__strategy="map", **DROPOUT))[0]


@pytest.fixture(scope="module")
def at_once(data):
    """The same run, in which the classes of a batch are computed at once."""
    return prepare(tiny.settings_of(data, adapter__strategy="loop", **DROPOUT))[0]


def one_device():
    """A mesh of one device."""
    return meshes.make_mesh(devices=jax.devices()[:1])


_BUILT = {}


def build(setup, mesh, phase):
    """Compiled step, its state, frozen tree and batches of task `phase` on a mesh; made once."""
    # A step takes the buffers of its state: each caller has a copy.
    key = (setup.method, mesh, phase)
    if key not in _BUILT:
        _BUILT[key] = _build(setup, mesh, phase)
    compiled, (state, *others) = _BUILT[key]
    return compiled, (jax.tree.map(jnp.copy, state), *others)


def _build(setup, mesh, phase):
    method, task = setup.method, setup.data.stream.tasks[phase - 1]
    optimizer = method.optimizer(phase)

    @jax.jit
    def start():
        memory = method.init(stream_key(0, "init"))
        rows = method._fresh(stream_key(0, "rows"), np.arange(2, dtype=np.int32))
        memory["bank"] = jax.tree.map(lambda v, r: v.at[:2].set(r), memory["bank"], rows)
        trainable, frozen = method.begin(memory, task, stream_key(0, "begin"))
        return steps.create(trainable, optimizer, STEPS), frozen

    state, frozen = start()
    state = jax.device_put(state, sharding.of_tree(state, mesh))
    frozen = jax.device_put(frozen, sharding.of_tree(frozen, mesh))
    step = steps.train_step(lambda *a: method.loss(phase, *a), optimizer, 0.9)
    batches = loader.class_groups(setup.data.train(task), groups=2, per_group=8, seed=0, task=phase)
    placed = [sharding.place_batch(batches[k], mesh) for k in range(STEPS)]
    compiled = steps.compile_step(step, state, frozen, method, mesh)
    return compiled.lower(state, frozen, placed[0], stream_key(0, "t")).compile(), (
        state,
        frozen,
        placed,
    )


def train(built):
    """Losses of a few steps and the final trainable tree."""
    compiled, (state, frozen, batches) = built
    losses = []
    for batch in batches:
        state, metrics = compiled(state, frozen, batch, stream_key(0, "t"))
        losses.append(float(metrics["loss"]))
    return losses, state


@pytest.mark.parametrize(("phase", "fsdp"), [(1, 2), (2, 1)])
def test_several_devices_train_as_one_does(setup, at_once, phase, fsdp):
    """With kernels that pairs of devices share, where they train, and without."""
    one = build(at_once if phase == 1 else setup, one_device(), phase)
    several = build(setup, meshes.make_mesh(fsdp), phase)
    flops = [built[0].cost_analysis()["flops"] for built in (one, several)]
    # Replicated work would show as (nearly) the same count per device. F and the optimiser are
    # replicated on purpose, which shows only in a network as tiny as this one. Of two classes that
    # take turns, only one is counted.
    counted = 2 if phase == 1 else 1
    assert counted * flops[1] * jax.device_count() < 2 * flops[0]
    found = hlo.summary(hlo.collectives(several[0].as_text(), jax.device_count()))
    found = {each["kind"]: each for each in found}
    reduced = found.pop("all-reduce")
    _, (state, *_) = several
    wanted = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    if phase == 2:  # only the rows of the two classes of a batch
        wanted *= 2 / len(jax.tree.leaves(state.trainable["factors"])[0])
    assert reduced["count"] == 1 and 0.9 * wanted < reduced["bytes"] <= wanted + 8  # and the loss
    assert set(found) == ({"all-gather"} if fsdp > 1 else set())
    if fsdp > 1:  # no image and no activation
        shared = [v.nbytes for v in jax.tree.leaves(state.trainable) if "fsdp" in v.sharding.spec]
        assert 0 < found["all-gather"]["bytes"] <= sum(shared)
    (losses_1, state_1), (losses_n, state_n) = train(one), train(several)
    np.testing.assert_allclose(losses_1, losses_n, rtol=2e-6)
    difference = jax.tree.map(
        lambda a, b: np.asarray(a) - np.asarray(b), state_1.trainable, state_n.trainable
    )
    # Adam turns rounding of a near-zero gradient into a whole step: compare the global norm.
    assert optax.tree.norm(difference) < 1e-4 * optax.tree.norm(state_1.trainable)


def test_shared_kernels_are_divided(setup):
    _, state = train(build(setup, meshes.make_mesh(fsdp=2), 1))
    kernel = state.trainable["trunk"]["input"]["kernel"]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, None, None, "fsdp")
    assert kernel.addressable_shards[0].data.shape[-1] == kernel.shape[-1] // 2


def test_several_steps_of_a_call_are_the_same_steps(setup):
    phase, mesh = 2, meshes.make_mesh()
    built = build(setup, mesh, phase)
    task = setup.data.stream.tasks[phase - 1]
    runtime = dataclasses.replace(setup.run.runtime, steps_per_call=STEPS)
    method = methods.build(dataclasses.replace(setup.run, runtime=runtime), setup.data.stream)
    _, (state, frozen, _) = built
    programs = steps.Phase(method, phase, state.trainable, frozen, mesh)
    batches = loader.class_groups(setup.data.train(task), groups=2, per_group=8, seed=0, task=phase)
    state = programs.create(state.trainable, STEPS)
    state, metrics = programs.advance(
        state, frozen, [batches[k] for k in range(STEPS)], stream_key(0, "t")
    )
    losses, single = train(built)
    assert len(metrics) == 1 and int(state.step) == STEPS
    np.testing.assert_allclose(metrics[0]["loss"], losses, rtol=2e-6)
    difference = jax.tree.map(np.subtract, *(jax.device_get(s.ema) for s in (state, single)))
    assert optax.tree.norm(difference) < 1e-4 * optax.tree.norm(single.ema)


def test_phase_2_differentiates_factors_only(setup):
    _, (state, frozen, _) = build(setup, meshes.make_mesh(), 2)
    assert set(state.trainable) == {"factors"} and set(frozen) == {"labels", "trunk"}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(m.size for m in moments) == 2 * sum(
        leaf.size for leaf in jax.tree.leaves(state.trainable)
    )


def test_parts_of_a_batch_train_as_the_whole_one_does(data, at_once, monkeypatch):
    """`map` takes classes, and parts of them, in turn; with dropout, which follows the image.

    In phase 1, where both the trunk and the factors train.
    """
    monkeypatch.setattr(accumulate, "_POSITIONS", 4 * 8 * 8)  # four of eight images of a class
    run = tiny.settings_of(data, adapter__strategy="map", **DROPOUT)
    parts = train(build(prepare(run)[0], one_device(), 1))
    whole = train(build(at_once, one_device(), 1))
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (parts[1], whole[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_average_warms_up_to_its_decay():
    def loss(trainable, frozen, batch, key, progress):
        del frozen, batch, key, progress
        return jnp.sum(trainable["bias"])

    step = steps.train_step(loss, optax.sgd(1.0), 0.25)
    state = steps.create({"bias": jnp.zeros(())}, optax.sgd(1.0), 4)
    ema, value = 0.0, 0.0
    for k in range(4):
        state, metrics = step(state, {}, {}, jax.random.key(0))
        value -= 1.0
        decay = min(0.25, (1 + k) / (10 + k))
        ema = decay * ema + (1 - decay) * value
        np.testing.assert_allclose(state.ema["bias"], ema, rtol=1e-6)
    assert float(metrics["grad_norm"]) == 1.0 and int(state.step) == 4
