"""What is stored, and what is said when it cannot be read."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.runs.checkpoint import Checkpoints, DamagedError, digest

TREE = {"kernel": jnp.arange(32.0).reshape(4, 8), "bias": jnp.ones(3)}


def target_of(tree, mesh):
    """Abstract arrays with the shardings of a mesh."""
    return jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s),
        tree,
        sharding.of_tree({"x": tree}, mesh)["x"],
    )


def test_a_task_comes_back_on_another_number_of_devices(tmp_path):
    tree = jax.device_put(TREE, sharding.of_tree({"x": TREE}, meshes.make_mesh(fsdp=4))["x"])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, tree)
    for mesh in (meshes.make_mesh(devices=jax.devices()[:1]), meshes.make_mesh(fsdp=2)):
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            got = checkpoints.restore_task(1, target_of(TREE, mesh))
        jax.tree.map(np.testing.assert_array_equal, got, TREE)
        assert got["kernel"].sharding.mesh == mesh


def test_the_newest_two_states_inside_a_task_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.running() is None
        for position in (10, 20, 30):
            checkpoints.save_running(position, TREE, {"task": 1, "step": position})
    with Checkpoints(tmp_path) as checkpoints:
        position, meta = checkpoints.running()
        assert (position, meta["task"], meta["step"]) == (30, 1, 30)
        assert meta["digest"] == digest(TREE)
        checkpoints.drop_running(30)
        assert checkpoints.running()[0] == 20
        checkpoints.drop_running()
        assert checkpoints.running() is None


def test_the_digest_sees_names_shapes_types_and_values():
    trees = [
        {"a": jnp.zeros(4)},
        {"b": jnp.zeros(4)},
        {"a": jnp.zeros((2, 2))},
        {"a": jnp.zeros(4, jnp.int32)},
        {"a": jnp.zeros(4).at[3].set(1e-30)},
    ]
    assert len({digest(tree) for tree in trees}) == len(trees)


def test_arrays_of_another_save_are_told_by_the_digest(tmp_path):
    """Orbax reads them without a complaint: names, shapes and types are the same."""
    for name, tree in (("ours", TREE), ("other", jax.tree.map(lambda v: v + 1, TREE))):
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save_task(1, tree)
    shutil.rmtree(tmp_path / "ours" / "tasks" / "1" / "state")
    shutil.copytree(
        tmp_path / "other" / "tasks" / "1" / "state", tmp_path / "ours" / "tasks" / "1" / "state"
    )
    with (
        Checkpoints(tmp_path / "ours") as checkpoints,
        pytest.raises(DamagedError, match="tasks/1 changed on disk"),
    ):
        checkpoints.restore_task(1, target_of(TREE, meshes.make_mesh()))


def test_another_shape_is_refused_and_not_padded(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, TREE)
        longer = {**TREE, "bias": jnp.ones(5)}
        with pytest.raises(DamagedError, match=r"tasks/1 holds .*bias.* as \(3,\) .*: delete"):
            checkpoints.restore_task(1, target_of(longer, meshes.make_mesh()))


def test_bytes_of_a_task_are_those_on_disk(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_task(1, {"kernel": jax.random.normal(jax.random.key(0), (64, 64))})
        assert 64 * 64 * 4 * 0.8 < checkpoints.bytes_of_task(1) < 64 * 64 * 4 * 2
