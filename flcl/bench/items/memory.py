"""The memory that a train step needs at most, measured on the device where it can be."""

from collections.abc import Iterator

import jax

from flcl.bench.figures import Figure, counted
from flcl.bench.programs import Training, Unmodulated, dtype_of
from flcl.bench.sizes import Size


def peak_memory(size: Size, rounds: int) -> Iterator[Figure]:
    """Peak memory of FunLoRA's train steps against that of the same U-Net without modulation."""
    del rounds
    groups = size.step_groups[0]
    keys = {"model__dtype": dtype_of(size), "phase1__groups": groups, "phase2__groups": groups}
    run = size.generator_run(**keys)
    window = size.generator_run(**keys, adapter__layers=size.window)
    reference = Training(run, 1, Unmodulated).bytes
    for name, (changed, phase) in {"phase1": (run, 1), "phase2": (window, 2)}.items():
        training = Training(changed, phase)
        note = f"{_mib(training.bytes)} of {_mib(reference)} by the memory analysis of the compiler"
        here = device_peak(training)
        if here is None:
            note += "; the peak on the device is unknown" + _reason()
        else:
            note += f"; at most {_mib(here)} in use on the device"
        peak = here or training.bytes
        yield counted(f"peak_memory/{name}", training.bytes, reference, note, peak_bytes=peak)


def device_peak(training: Training) -> int | None:
    """The most bytes that were in use on the device while a step ran.

    None if the device does not count them, or if something before has used more: the counter of a
    device never falls.
    """
    device = training.mesh.devices.flat[0]
    before = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if before is None:
        return None
    jax.block_until_ready(training())
    after = device.memory_stats()["peak_bytes_in_use"]
    return after if after > before else None


def _reason() -> str:
    device = jax.devices()[0]
    if (device.memory_stats() or {}).get("peak_bytes_in_use") is None:
        return f", because this {device.platform} does not count it"
    return ", because an earlier program has used more"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
