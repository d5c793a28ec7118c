"""The cost of a program: its FLOPs, its memory on a device, and the reason if one is unknown.

FLOPs are counted by XLA, which counts the body of a loop once. A *written* program is the lowered
program before it is optimised or divided over devices; a *compiled* program is what a device runs.
"""

import math
import re
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from flcl.compiling import nothing_remembered
from flcl.cost import hlo
from flcl.cost.programs import Program
from flcl.cost.targets import Target
from flcl.devices import mesh as meshes
from flcl.methods.base import Method

REPLICATED = 1.5
"""Above this ratio of the work of all devices to the work of one, work counts as replicated."""

LIBRARIES = (
    "XLA does not count what a GPU program leaves to cuDNN and cuBLAS: the work is that of the "
    "program as written, taken to be divided equally over the devices"
)
"""A note about the work of a program that is compiled for GPUs."""

# A program for another machine must not use this machine's compiler options. Triton is off, because
# its kernels are chosen by timing; without the device, some shapes are then refused.
_OPTIONS = {
    "tpu": {"xla_backend_optimization_level": 3},
    "gpu": {"xla_backend_optimization_level": 3, "xla_gpu_enable_triton_gemm": False},
}
_CODES = re.compile(r"^(?:\w+: )+")  # such as `RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: `
_TOO_MUCH = re.compile(r"total memory required[^(]*\(([\d.]+)([KMGT]?)\)")


def written_flops(lowered: Lowered) -> float | None:
    """FLOPs of a program as written; None if the backend does not count them."""
    return (lowered.cost_analysis() or {}).get("flops")


def compiled_flops(compiled: Compiled, platform: str) -> float | None:
    """FLOPs of one device; None on a `gpu` (see `LIBRARIES`) and if they are not counted."""
    return None if platform == "gpu" else (compiled.cost_analysis() or {}).get("flops")


def one_device_flops(program: Program, method: Method, platform: str) -> float:
    """FLOPs of the whole program as written for a single device of `platform`: `tpu` or `gpu`.

    It is only lowered on this machine, which takes seconds; a second compilation would take as long
    as the first.
    """
    mesh = meshes.make_mesh(devices=jax.devices("cpu")[:1])
    # In a program for a CPU, gradients would be summed in loops, which count once.
    lowered = program.lower(method, mesh, {"gpu": "cuda"}.get(platform, platform))
    return float(written_flops(lowered))


def memory_of(compiled: Compiled) -> dict[str, int]:
    """Bytes on one device: arguments, outputs, the part that both share, temporaries, peak."""
    stats = compiled.memory_analysis()
    return {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "peak": stats.peak_memory_in_bytes,
    }


def device_bytes(compiled: Compiled) -> int:
    """Bytes of arguments, temporaries and outputs on one device; a donated state counts once."""
    memory = memory_of(compiled)
    return memory["arguments"] + memory["temporaries"] + memory["outputs"] - memory["aliased"]


def required_bytes(memory: dict[str, int] | None, refused: str | None) -> int | None:
    """Bytes that must be free on a device: the peak with arguments, and the program itself.

    For a refused program, the number in the message of the compiler; None if there is none.
    Temporaries are not added: on a TPU they include on-chip memory, and space that is used again.
    """
    if memory is not None:
        return memory["peak"] + memory["code"]
    match = _TOO_MUCH.search(refused)
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " ")) if match else None


def measure(program: Program, method: Method, mesh: Mesh, target: Target) -> dict:
    """The memory and work on each device of a program that is compiled for `target`.

    `memory` and `flops_per_device` are None if the compiler refuses a program that does not fit;
    `refused` is then its message. For a program that fits, `uncounted` says why FLOPs or
    `replication` are unknown; it is None if both are known.
    """
    started = time.monotonic()
    lowered = program.lower(method, mesh, None)
    memory, refused, exchanges = None, None, []
    work = _work(None, None, None, program.uncounted)
    try:
        compiled = compile_for(lowered, target.platform)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refused = _CODES.sub("", str(error).strip().splitlines()[0])
    else:
        memory = memory_of(compiled)
        exchanges = hlo.collectives(compiled.as_text(), mesh.size)
        if program.uncounted is None:
            work = work_of(program, method, mesh, target, compiled)
    required = required_bytes(memory, refused)
    return {
        "name": program.name,
        "batch_key": program.batch_key,
        "images": program.images(method.run),
        "parameter_bytes": _parameter_bytes(lowered),
        "memory": memory,
        "collectives": exchanges,
        "refused": refused,
        **work,
        "required_bytes": required,
        "fits": refused is None and required <= target.chip.usable,
        "seconds": round(time.monotonic() - started, 1),
    }


def work_of(
    program: Program, method: Method, mesh: Mesh, target: Target, compiled: Compiled
) -> dict:
    """`flops_per_device`, the FLOPs of a single device that does everything, and their ratio.

    On GPUs the ratio is unknown; `flops_per_device` then assumes that no work is repeated.
    """
    whole, images = one_device_flops(program, method, target.platform), program.images(method.run)
    # Samplers and features round their batch up to a multiple of the devices.
    padded = meshes.rounded_up(images, mesh) / images
    flops = compiled_flops(compiled, target.platform)
    if flops is None:
        return _work(whole * padded / mesh.size, whole, None, LIBRARIES)
    return _work(flops, whole, flops * mesh.size / (whole * padded), None)


def _work(
    flops: float | None, whole: float | None, replication: float | None, uncounted: str | None
) -> dict:
    return {
        "flops_per_device": flops,
        "one_device_flops": whole,
        "replication": replication,
        "uncounted": uncounted,
    }


def compile_for(lowered: Lowered, platform: str) -> Compiled:
    """Compiles for devices of another machine; platform: `tpu` or `gpu`."""
    with nothing_remembered():
        return lowered.compile(compiler_options=_OPTIONS[platform])


def _parameter_bytes(lowered: Lowered) -> int:
    """Undivided bytes of all arguments except images, which are the only uint8 arguments."""
    leaves = [leaf for leaf in jax.tree.leaves(lowered.args_info) if leaf.dtype != jnp.uint8]
    return sum(math.prod(leaf.shape) * _itemsize(leaf.dtype) for leaf in leaves)


def _itemsize(dtype) -> int:
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize
