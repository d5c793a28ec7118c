"""Devices of other machines: topologies that a compiler knows by name."""

import importlib.util
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from flcl.cost.chips import CHIPS, Chip

_EXAMPLES = "v5e:4x4, v4:2x2x4, v5p:4x4x4, v6e:16x16, tpu7x:2x2x1, h100:8, h200:8"

# Otherwise libtpu searches for a TPU on this machine, and locks it for other processes.
_NO_TPU_HERE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}

# The description of a GPU for XLA's compiler, in the text form of GpuTargetConfigProto: limits of
# compute capability 9.0 (CUDA C++ Programming Guide, table "technical specifications per compute
# capability"), 132 multiprocessors (NVIDIA Hopper architecture white paper).
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  shared_memory_per_block: {block}
  shared_memory_per_block_optin: {optin}
  shared_memory_per_core: {shared}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  l2_cache_size: {l2}
  memory_bandwidth: {bandwidth}
  device_memory_size: {hbm}
  cuda_compute_capability {{ major: 9 minor: 0 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{kind}"
"""


class Target(NamedTuple):
    """A machine to compile for.

    Attributes:
      topology: its name, as given by the user.
      chip: the data of its chips.
      platform: `tpu` or `gpu`.
      devices: its JAX devices; they can only be compiled for.
    """

    topology: str
    chip: Chip
    platform: str
    devices: list[jax.Device]


def target_of(topology: str) -> Target:
    """The machine of a name such as `v5e:4x4` or `h100:8`.

    Raises `ValueError` for a name or shape that no compiler knows, and if the compiler is not
    installed; the error names the extra to install.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(
            f"--topology={topology}: accepted is CHIP:SHAPE with CHIP one of {', '.join(CHIPS)}, "
            f"such as {_EXAMPLES}"
        )
    chip = CHIPS[name]
    platform = "tpu" if chip.name.startswith("TPU") else "gpu"
    devices = (_tpu if platform == "tpu" else _gpu)(topology, chip, shape)
    return Target(topology, chip, platform, devices)


def _tpu(topology: str, chip: Chip, shape: str) -> list[jax.Device]:
    del shape
    _require("libtpu", topology, "aot")
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    # On a real machine both cores of a v4 are one JAX device; without this there would be two.
    options = {"chip_config_name": "megacore"} if chip is CHIPS["v4"] else {}
    try:
        description = topologies.get_topology_desc(topology, "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"--topology={topology}: libtpu knows no such shape ({_line(error)}); such as "
            f"{_EXAMPLES}"
        ) from error
    return list(description.devices)


def _gpu(topology: str, chip: Chip, shape: str) -> list[jax.Device]:
    if not shape.isdecimal() or not 1 <= int(shape) <= chip.slice:
        raise ValueError(
            f"--topology={topology}: accepted are 1 to {chip.slice} GPUs of one machine, such as "
            f"{topology.partition(':')[0]}:{chip.slice}"
        )
    _require("jax_plugins.xla_cuda13", topology, "cuda")
    config = _HOPPER.format(
        block=48 * 1024,
        optin=227 * 1024,
        shared=228 * 1024,
        l2=50 * 2**20,
        bandwidth=int(chip.hbm_bandwidth),
        hbm=chip.hbm,
        kind=chip.kinds[0],
    )
    try:
        description = topologies.get_topology_desc(
            topology, "cuda", topology=f"1x1x{shape}", target_config=config
        )
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(f"--topology={topology}: the plugin refuses it: {_line(error)}") from error
    return list(description.devices)


def _require(module: str, topology: str, extra: str) -> None:
    try:
        missing = importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # the parent package is also missing
        missing = True
    if missing:
        raise ValueError(
            f"--topology={topology}: its compiler is not installed; install the extra {extra}: "
            f'python -m pip install -c constraints.txt -e ".[{extra}]"'
        )


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
