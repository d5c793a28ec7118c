"""How batches and parameters are stored on a mesh."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Both axes: devices that share parameters still compute different images.
BATCH = PartitionSpec(("data", "fsdp"))


def is_kernel(name: str) -> bool:
    """Whether an array, such as `trunk/input/kernel`, is a kernel or an embedding table."""
    return name.rpartition("/")[2] in ("kernel", "embedding")


def over_devices(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicated_like(tree, mesh: Mesh):
    """Shapes and types of a replicated tree, to restore it."""
    same = replicated(mesh)
    return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=same), tree)


def of_tree(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """A sharding for every array of a tree of (abstract) parameters or optimiser state.

    divides: called with a name such as `trunk/input/kernel`. If it is true, the last axis, the
      output channels, is divided over the `fsdp` devices that share parameters. Spatial and
      contracted axes are never divided, because that needs all-to-all exchanges. All other arrays
      are replicated.
    """

    def of_leaf(path, leaf):
        name = "/".join(_part(entry) for entry in path)
        shards, shape = mesh.shape["fsdp"], leaf.shape
        # An array that does not divide is replicated, which costs memory but changes no result.
        if shards == 1 or not shape or shape[-1] % shards or not divides(name):
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "fsdp"))

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def place(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """Puts the arrays of a tree on the devices: see `of_tree`."""
    return jax.device_put(tree, of_tree(tree, mesh, divides))


def abstract(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """Shapes, types and shardings of a tree of (abstract) parameters, to restore it."""
    return jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s),
        tree,
        of_tree(tree, mesh, divides),
    )


def of_entry(name: str, spread: frozenset[str], mesh: Mesh) -> NamedSharding:
    """Sharding of a batch entry: over all devices if it is in `spread`, else replicated."""
    return over_devices(mesh) if name in spread else replicated(mesh)


def place_batch(batch: dict, mesh: Mesh, spread: frozenset[str] = frozenset({"images"})) -> dict:
    """Global arrays from the rows of a batch that this process has.

    Entries in `spread` are divided by rows; every process has all rows of the other entries.
    """
    return {
        name: jax.make_array_from_process_local_data(of_entry(name, spread, mesh), value)
        for name, value in batch.items()
    }


def place_batches(batches: list[dict], mesh: Mesh, spread: frozenset[str]) -> dict:
    """Like `place_batch`, for several batches stacked along a new leading axis."""
    return {
        name: jax.make_array_from_process_local_data(
            stacked(of_entry(name, spread, mesh)), np.stack([b[name] for b in batches])
        )
        for name in batches[0]
    }


def stacked(sharding: NamedSharding) -> NamedSharding:
    """The sharding of arrays that are stacked along a new leading axis."""
    # The new axis is the steps of a call; every device needs all of them.
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def _part(entry) -> str:
    # Dictionaries, dataclasses and tuples name their entries in three different ways.
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
