"""Compiling the programs of a run for a machine that is not there, and what they then ask of it."""

import math
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from flcl import settings
from flcl.compiling import nothing_remembered
from flcl.cost import hlo, lowering
from flcl.cost.targets import Target
from flcl.devices import mesh as meshes
from flcl.methods.base import Classifier, Generator, Method

REPLICATED = 1.5
"""Work of all devices over the work of one above which the work counts as replicated."""

# What is compiled for another machine must not take over how this one compiles for itself. Triton's
# kernels are chosen by timing them, and without the device some shapes are then refused.
_OPTIONS = {
    "tpu": {"xla_backend_optimization_level": 3},
    "gpu": {"xla_backend_optimization_level": 3, "xla_gpu_enable_triton_gemm": False},
}
_TOO_MUCH = re.compile(r"total memory required[^(]*\(([\d.]+)([KMGT]?)\)")


class Program(NamedTuple):
    """A program to compile.

    Attributes:
      name: `phase1`, `phase2`, `sampler` or `features`.
      key: the setting that is its global batch.
      lower: (method, mesh, platform) -> the lowered program; platform: None, or what it is written
        for where it is only looked at.
      groups: class groups that a batch consists of.
    """

    name: str
    key: str
    lower: Callable[[Method, Mesh, str | None], Lowered]
    groups: int = 1

    def images(self, run: settings.Run) -> int:
        """Images of its global batch."""
        section, name = self.key.split(".")
        return getattr(getattr(run, section), name)


def programs_of(method: Method) -> list[Program]:
    """What a run of the method compiles: its train steps, and the sampler or the features."""
    found = []
    for phase in lowering.phases(method):
        key, groups = "train.batch_size", 1
        if isinstance(method, Generator):
            key, groups = f"phase{phase}.batch_size", method.phase_settings(phase).groups
        found.append(Program(f"phase{phase}", key, _step(phase), groups))
    if isinstance(method, Generator):
        return [*found, Program("sampler", "sample.chunk", _sampler)]
    assert isinstance(method, Classifier)
    return [*found, Program("features", "train.eval_batch_size", _features)]


def _parameter_bytes(lowered: Lowered) -> int:
    """Bytes of all arguments but images, which are the only bytes among them, not divided."""
    arguments = [each for each in jax.tree.leaves(lowered.args_info) if each.dtype != jnp.uint8]
    return sum(math.prod(each.shape) * _itemsize(each.dtype) for each in arguments)


def _itemsize(dtype) -> int:
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize


def _sampler(method: Method, mesh: Mesh, _: str | None) -> Lowered:
    return lowering.lower_sampler(method, mesh)


def _features(method: Method, mesh: Mesh, _: str | None) -> Lowered:
    return lowering.lower_features(method, mesh)


def _step(phase: int):
    return lambda method, mesh, platform: lowering.lower_step(method, phase, mesh, platform)


def measure(program: Program, method: Method, mesh: Mesh, target: Target) -> dict:
    """What a compiled program asks of each device of `target`.

    `memory` and `flops_per_device` are None for a program that the compiler refuses because it does
    not fit; `refused` is then what it says. A step that takes classes in turn has no FLOPs either.
    """
    started = time.monotonic()
    lowered = program.lower(method, mesh, None)
    found = {
        "name": program.name,
        "batch_key": program.key,
        "images": program.images(method.run),
        "parameter_bytes": _parameter_bytes(lowered),
        "memory": None,
        "flops_per_device": None,
        "collectives": [],
        "refused": None,
        "one_device_flops": None,
        "replication": None,
    }
    try:
        compiled = compile_for(lowered, target.platform)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found["refused"] = str(error).strip().splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    else:
        text = compiled.as_text()
        found["memory"] = memory_of(compiled)
        found["collectives"] = hlo.collectives(text, mesh.size)
        if not (program.name.startswith("phase") and method.takes_turns):
            found |= _work(program, method, mesh, target, flops_of(compiled, text))
    found["required_bytes"] = required(found)
    found["fits"] = found["refused"] is None and found["required_bytes"] <= target.chip.usable
    found["seconds"] = round(time.monotonic() - started, 1)
    return found


def _work(program: Program, method: Method, mesh: Mesh, target: Target, flops: float) -> dict:
    """`flops_per_device`, those of one device that does all of it, and what is done twice."""
    one, images = one_device_flops(program, method, target.platform), program.images(method.run)
    # Samplers and features round their batch up to a multiple of the devices.
    ours = -(-images // mesh.size) * mesh.size
    replication = flops * mesh.size / one * images / ours
    return {"flops_per_device": flops, "one_device_flops": one, "replication": replication}


def compile_for(lowered: Lowered, platform: str) -> Compiled:
    """Compiles for devices that are not there; platform: `tpu` or `gpu`."""
    with nothing_remembered():
        return lowered.compile(compiler_options=_OPTIONS[platform])


def memory_of(compiled: Compiled) -> dict[str, int]:
    """Bytes on one device: arguments, outputs, how much of these are one, temporaries, peak."""
    stats = compiled.memory_analysis()
    return {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "peak": stats.peak_memory_in_bytes,
    }


def required(found: dict) -> int | None:
    """Bytes that a device must have free: the peak, arguments included, and the program itself.

    Of a program that was refused, what the compiler says; None when it does not say. Temporaries
    are not added up: on a TPU they count memory on the chip too, and space that is used again.
    """
    memory = found["memory"]
    if memory is not None:
        return memory["peak"] + memory["code"]
    match = _TOO_MUCH.search(found["refused"])
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " ")) if match else None


def flops_of(compiled: Compiled, text: str) -> float:
    """FLOPs of one device, loops counted once: XLA's count, or on a GPU that of `matrix_flops`."""
    costs = compiled.cost_analysis()
    return float(costs["flops"]) if costs else hlo.matrix_flops(text)


def one_device_flops(program: Program, method: Method, platform: str) -> float:
    """FLOPs of the whole program before it is divided or optimised, loops counted once.

    XLA's count of the same program lowered for a single device of this machine: seconds, where
    compiling it once more would take as long as the program itself.
    """
    here = meshes.make_mesh(devices=jax.devices("cpu")[:1])
    # As it is written for the target: on a CPU gradients are summed in loops, which count once.
    written = {"gpu": "cuda"}.get(platform, platform)
    return float(program.lower(method, here, written).cost_analysis()["flops"])
