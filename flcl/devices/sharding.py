"""Where arrays are stored on a mesh: batches, parameters, and copies on every device."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH = PartitionSpec(("data", "fsdp"))


def is_kernel(name: str) -> bool:
    """Whether an array named like `trunk/input/kernel` is a kernel or a table of embeddings."""
    return name.rpartition("/")[2] in ("kernel", "embedding")


def over_devices(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicated_like(tree, mesh: Mesh):
    """Shapes and types of a tree that every device holds whole, to restore it."""
    same = replicated(mesh)
    return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=same), tree)


def of_tree(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """A sharding for every array of a tree of (abstract) parameters or optimiser state.

    divides: told a name such as `trunk/input/kernel`; where it is true the last axis, the output
      channels, is divided over the `fsdp` devices that share parameters, never a spatial or a
      contracted axis, which costs all-to-all exchanges. All else is replicated.
    """

    def one(path, leaf):
        name = "/".join(_part(entry) for entry in path)
        shards, shape = mesh.shape["fsdp"], leaf.shape
        if shards == 1 or not shape or shape[-1] % shards or not divides(name):
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "fsdp"))

    return jax.tree_util.tree_map_with_path(one, tree)


def place(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """The arrays of a tree on the devices: see `of_tree`."""
    return jax.device_put(tree, of_tree(tree, mesh, divides))


def abstract(tree, mesh: Mesh, divides: Callable[[str], bool] = is_kernel):
    """Shapes, types and shardings of a tree of (abstract) parameters, to restore it."""
    return jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s),
        tree,
        of_tree(tree, mesh, divides),
    )


def of_entry(name: str, spread: frozenset[str], mesh: Mesh) -> NamedSharding:
    """Sharding of a batch entry: over every device when `spread` names it."""
    return over_devices(mesh) if name in spread else replicated(mesh)


def place_batch(batch: dict, mesh: Mesh, spread: frozenset[str] = frozenset({"images"})) -> dict:
    """Global arrays from this process's rows of a batch.

    `spread` names the entries that are cut into rows; of the others every process has all.
    """
    return {
        name: jax.make_array_from_process_local_data(of_entry(name, spread, mesh), value)
        for name, value in batch.items()
    }


def place_batches(batches: list[dict], mesh: Mesh, spread: frozenset[str]) -> dict:
    """As `place_batch` for several batches of one layout, stacked along a new leading axis."""
    return {
        name: jax.make_array_from_process_local_data(
            stacked(of_entry(name, spread, mesh)), np.stack([b[name] for b in batches])
        )
        for name in batches[0]
    }


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Of an array whose entries along a new leading axis are sharded so."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def _part(entry) -> str:
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
