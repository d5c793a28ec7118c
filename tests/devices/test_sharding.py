"""Where arrays are stored: kernels by output channel, all else on every device."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from flcl.devices import mesh as meshes
from flcl.devices import sharding

WHOLE, DIVIDED = PartitionSpec(), PartitionSpec(None, None, None, "fsdp")


def specs(tree, mesh, **options):
    """Partition specs of a tree."""
    return jax.tree.map(lambda s: s.spec, sharding.of_tree(tree, mesh, **options))


@pytest.fixture(scope="module")
def mesh():
    """Four devices share parameters, in two rows."""
    return meshes.make_mesh(fsdp=4)


def test_kernels_are_divided_and_unknown_arrays_are_whole(mesh):
    """A method may have arrays that nobody has heard of, such as a Gram matrix."""
    tree = {
        "trunk": {"input": {"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)}},
        "gram": jnp.zeros((8, 8)),
        "seen": jnp.zeros(8, bool),
    }
    assert specs(tree, mesh) == {
        "trunk": {"input": {"kernel": DIVIDED, "bias": WHOLE}},
        "gram": WHOLE,
        "seen": WHOLE,
    }


def test_optimiser_leaves_follow_their_parameters(mesh):
    tree = {"input": {"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)}}
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(tree)
    found = specs(state, mesh)
    moments = found[1][0]
    assert moments.mu == moments.nu == {"input": {"kernel": DIVIDED, "bias": WHOLE}}
    assert moments.count == WHOLE


def test_a_kernel_that_does_not_divide_is_whole(mesh):
    assert specs({"output": {"kernel": jnp.zeros((3, 3, 8, 3))}}, mesh)["output"]["kernel"] == WHOLE


def test_a_method_says_what_is_divided(mesh):
    tree = {"gram": jnp.zeros((8, 8)), "input": {"kernel": jnp.zeros((2, 8))}}
    found = specs(tree, mesh, divides=lambda name: name == "gram")
    assert found == {"gram": PartitionSpec(None, "fsdp"), "input": {"kernel": WHOLE}}


@pytest.mark.parametrize(("size", "want"), [(1, 4), (4, 4), (5, 8)])
def test_a_batch_is_filled_up_to_all_devices(size, want, mesh):
    assert meshes.rounded_up(size, mesh) == want
