"""The only maker of meshes: `data` x `fsdp` with automatic partitioning."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh


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
