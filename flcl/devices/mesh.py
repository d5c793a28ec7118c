"""The only maker of meshes and shardings: a `data` x `fsdp` mesh with automatic partitioning."""

import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH = PartitionSpec(("data", "fsdp"))

# First match wins and a parameter without a match is an error. `output` shards the last axis
# (output channels) over `fsdp`: never a spatial or a contracted one, which costs all-to-all
# exchanges.
RULES: tuple[tuple[str, str], ...] = (
    (r".*/(kernel|embedding)$", "output"),
    (r".*/(bias|scale|a|b|m|n|alpha|omega|class_token|position|gamma|weight|sum)$", "replicate"),
    (r"(.*/)?(cores|scales|magnitudes)/", "replicate"),
    (r"(.*/)?(labels|rows|step|steps|count|seen|prompt|probe|complexity|first)$", "replicate"),
)


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """Mesh of all devices, `fsdp` of which share parameters.

    Raises `ValueError` when the devices do not divide. Axis types are Auto: with Explicit axes a
    sharded contraction such as FSDP's is refused by the tracer.
    """
    if devices is None:
        # A process reads neighbouring rows of a batch: its devices have to be neighbours, too.
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = np.asarray(devices)
    if fsdp < 1 or devices.size % fsdp:
        raise ValueError(f"runtime.fsdp={fsdp}: must divide the {devices.size} devices of this run")
    return Mesh(devices.reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def check_batch(name: str, batch: int, groups: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless a global batch splits evenly over groups and devices."""
    step = groups * mesh.size
    if batch % step:
        raise ValueError(
            f"{name}.batch_size={batch}: must be a multiple of {step} ({groups} class groups x "
            f"{mesh.size} devices); the nearest is {_nearest(batch, step)}"
        )


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless `size` images split evenly over the devices."""
    if size % mesh.size:
        raise ValueError(
            f"{name}={size}: must be a multiple of the {mesh.size} devices; the nearest is "
            f"{_nearest(size, mesh.size)}"
        )


def _nearest(size: int, step: int) -> int:
    return max(1, round(size / step)) * step


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicated_like(tree, mesh: Mesh):
    """Shapes and types of a tree that every device holds whole, to restore it."""
    same = replicated(mesh)
    return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=same), tree)


def entry_sharding(name: str, spread: frozenset[str], mesh: Mesh) -> NamedSharding:
    """Sharding of a batch entry: over every device when `spread` names it."""
    return batch_sharding(mesh) if name in spread else replicated(mesh)


def place_batch(batch: dict, mesh: Mesh, spread: frozenset[str] = frozenset({"images"})) -> dict:
    """Global arrays from this process's rows of a batch.

    `spread` names the entries that are cut into rows; of the others every process has all.
    """
    return {
        name: jax.make_array_from_process_local_data(entry_sharding(name, spread, mesh), value)
        for name, value in batch.items()
    }


def place_batches(batches: list[dict], mesh: Mesh, spread: frozenset[str]) -> dict:
    """As `place_batch` for several batches of one layout, stacked along a new leading axis."""
    return {
        name: jax.make_array_from_process_local_data(
            stacked(entry_sharding(name, spread, mesh)), np.stack([b[name] for b in batches])
        )
        for name in batches[0]
    }


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Of an array whose entries along a new leading axis are sharded so."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def abstract(tree, mesh: Mesh):
    """Shapes, types and shardings of a tree of (abstract) parameters, to restore it."""
    return jax.tree.map(
        lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s),
        tree,
        tree_sharding(tree, mesh),
    )


def tree_sharding(tree, mesh: Mesh):
    """A sharding for every array of a tree of (abstract) parameters, by `RULES`."""

    def one(path, leaf):
        name = "/".join(_part(entry) for entry in path)
        for pattern, rule in RULES:
            if re.match(pattern, name):
                return NamedSharding(mesh, _spec(rule, leaf.shape, mesh))
        raise ValueError(f"no sharding rule covers parameter {name!r}")

    return jax.tree_util.tree_map_with_path(one, tree)


def _part(entry) -> str:
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))


def _spec(rule: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    shards = mesh.shape["fsdp"]
    if rule == "replicate" or shards == 1 or not shape or shape[-1] % shards:
        return PartitionSpec()
    return PartitionSpec(*[None] * (len(shape) - 1), "fsdp")
