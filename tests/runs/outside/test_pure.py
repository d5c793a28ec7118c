"""Sampling and classification as pure functions, inside programs of users."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import flcl
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.ops.pixels import to_uint8
from flcl.runs.outside.pure import earlier_equal, places_of, slimmed

LABELS = (3, 5, 3, 0)


@pytest.fixture(scope="module")
def run(finished):
    """The finished tiny run."""
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def want(run):
    return run.sample(labels=LABELS, seed=7).images


def same(images, wanted) -> bool:
    """Equal up to one level of 255: another size of a batch may round differently."""
    images = np.asarray(to_uint8(images)).astype(int)
    return images.shape == wanted.shape and np.abs(images - wanted).max() <= 1


def test_the_function_draws_the_images_of_the_run(run, want):
    parameters, sample = run.functional()
    # Labels are traced, and the function is a part of another compiled program.
    program = jax.jit(lambda p, key, labels: 2 * jax.jit(sample)(p, key, labels))
    twice = program(parameters, run.key(7), jnp.asarray(LABELS))
    assert twice.dtype == jnp.float32 and same(twice / 2, want)
    other = program(parameters, run.key(8), jnp.asarray(LABELS))
    assert not same(other / 2, want)
    # The parameters of another task fit, and what it has not learned is marked.
    earlier, _ = run.functional(task=1)
    first = program(earlier, run.key(7), jnp.asarray((3, 5, 3, 0)))
    assert same(first[3] / 2, want[3]) and np.isnan(first[:3]).all()
    unknown = program(parameters, run.key(7), jnp.asarray((-1, 6, 99, 0)))
    assert same(unknown[3] / 2, want[3]) and np.isnan(unknown[:3]).all()


def test_a_mapped_function_shares_the_kernels_of_a_class(run):
    parameters, sample = run.functional(solver="midpoint", num_steps=1)
    labels = jnp.asarray((4, 1))
    keys = jnp.stack([run.key(0), run.key(1)])
    over_keys = jax.jit(jax.vmap(sample, in_axes=(None, 0, None)))(parameters, keys, labels)
    indices = jnp.tile(jnp.arange(3)[:, None], (1, 2))
    over_images = jax.jit(
        jax.vmap(lambda indices: sample(parameters, run.key(), labels, indices=indices))
    )(indices)
    wanted = [run.sample([4, 1], 3, solver="midpoint", num_steps=1, seed=s).images for s in (0, 1)]
    assert same(over_keys, np.stack([each[:, 0] for each in wanted]))
    assert same(over_images, np.swapaxes(wanted[0], 0, 1))


def test_a_gradient_reaches_the_noise(run):
    parameters, sample = run.functional()
    noise = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))

    @jax.jit
    def brightness(noise):
        return sample(parameters, run.key(), jnp.asarray([2]), noise).sum()

    gradient = jax.jit(jax.grad(brightness))(noise)
    step = 1e-2 * jnp.sign(gradient)
    measured = (brightness(noise + step) - brightness(noise - step)) / 2
    np.testing.assert_allclose(measured, (gradient * step).sum(), rtol=0.02)
    assert float(jnp.abs(gradient).min()) > 0


def test_images_are_divided_over_the_devices_of_another_mesh(run, want):
    mesh = meshes.make_mesh(devices=jax.devices()[:2])
    parameters, sample = run.functional(at_once=2)
    spread = sharding.over_devices(mesh)
    labels = jax.device_put(jnp.asarray(LABELS), spread)
    images = jax.jit(sample, out_shardings=spread)(parameters, run.key(7), labels)
    assert same(images, want)
    # Or each device calls the function for its own labels.
    parts, indices = PartitionSpec("data"), jnp.asarray((0, 0, 1, 0))
    mapped = jax.shard_map(
        lambda labels, indices: run.functional()[1](
            parameters, run.key(7), labels, indices=indices
        ),
        mesh=mesh,
        in_specs=(parts, parts),
        out_specs=parts,
        check_vma=False,
    )
    assert same(jax.jit(mapped)(labels, indices), want)


@pytest.mark.parametrize(
    ("labels", "at_once", "message"),
    [
        (jnp.zeros(2), 1, r"labels: float32\[2\]; class ids are needed, integers \[N\]"),
        (jnp.zeros((), int), 1, r"labels: int32\[\]"),
        (jnp.zeros(0, int), 1, r"labels: int32\[0\]"),
        (jnp.zeros(3, int), 2, "labels: 3 entries; with at_once=2 a multiple"),
    ],
)
def test_labels_that_fit_no_program(run, labels, at_once, message):
    parameters, sample = run.functional(at_once=at_once)
    with pytest.raises(ValueError, match=message):
        sample(parameters, run.key(), labels)


def test_noise_and_indices_of_other_shapes(run):
    parameters, sample = run.functional()
    labels = jnp.zeros(2, int)
    with pytest.raises(ValueError, match=r"noise: shape \[1, 8, 8, 1\]; .* \[2, 8, 8, 1\]"):
        sample(parameters, run.key(), labels, jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match=r"indices: shape \[3\]; for these labels \[2\]"):
        sample(parameters, run.key(), labels, indices=jnp.arange(3))


def test_the_index_of_an_entry_is_the_number_of_equal_ones_before_it():
    labels = np.random.default_rng(0).integers(0, 5, 40)
    wanted = [(labels[:i] == label).sum() for i, label in enumerate(labels)]
    np.testing.assert_array_equal(jax.jit(earlier_equal)(jnp.asarray(labels)), wanted)


def test_class_ids_without_a_place():
    table = np.asarray([2, -1, 0])  # of NumPy, as `jax.device_get` makes parameters
    got = jax.jit(lambda labels: places_of(table, labels))(jnp.asarray([-3, -1, 0, 1, 2, 3, 9]))
    assert got.tolist() == [-1, -1, 2, -1, 0, -1, -1]


def test_arrays_that_change_nothing_are_left_out():
    def function(tree, x):
        unused = tree["c"] @ tree["c"]
        return tree["a"] * x + 0 * functools.reduce(jnp.add, tree["b"]), unused[0]

    tree = {"a": jnp.ones(3), "b": (jnp.ones(3), jnp.ones(3)), "c": jnp.ones((3, 3))}
    few, smaller = slimmed(lambda tree, x: function(tree, x)[0], tree, jnp.ones(3))
    assert few["c"] is None and len(jax.tree.leaves(few)) == 3
    np.testing.assert_array_equal(jax.jit(smaller)(few, jnp.full(3, 2.0)), np.full(3, 2.0))
