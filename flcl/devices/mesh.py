"""The only module that makes meshes: `data` x `fsdp` with automatic partitioning."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """A mesh of all devices; groups of `fsdp` devices share parameters.

    Raises `ValueError` if `fsdp` does not divide the number of devices. Axis types are Auto: with
    Explicit axes the tracer refuses a sharded contraction such as that of FSDP.
    """
    if devices is None:
        # A process reads adjacent rows of a batch, so its devices must be adjacent too.
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = np.asarray(devices)
    if fsdp < 1 or devices.size % fsdp:
        raise ValueError(f"runtime.fsdp={fsdp}: must divide the {devices.size} devices of this run")
    # Devices that share parameters are adjacent: they exchange parameters in every step.
    return Mesh(devices.reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def check_batch(name: str, batch: int, groups: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless a global batch splits evenly over groups and devices."""
    # Every device gets the same number of images of every class.
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


def rounded_up(size: int, mesh: Mesh) -> int:
    """`size`, or the next number above it by which a batch is divided over all devices."""
    return -(-size // mesh.size) * mesh.size


def _nearest(size: int, step: int) -> int:
    return max(1, round(size / step)) * step
