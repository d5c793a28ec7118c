"""One run in several processes: how they start, agree, and leave the writing to the first.

Every process runs the same program over the same global arrays. What only one of them can see (a
file that is missing on its machine, a lock that is taken) is told to all, so that they stop
together instead of waiting for each other.
"""

import contextlib
import importlib.util
import itertools
import json
import os
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

_LONGEST = 1_000  # bytes of a message that processes tell each other


def several_expected(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a cluster says that this process is one of several: SLURM, Open MPI, GKE or a TPU VM.

    JAX finds the address, count and number of the processes there by itself.
    """
    # Inside `srun` only: the batch script around it sees the count of tasks, but is none of them.
    tasks = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in environment else "1"
    if int(tasks) > 1 or int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return True
    if environment.get("JAX_PLATFORMS", "tpu") not in ("", "tpu", "tpu,cpu"):
        return False
    slices = int(environment.get("MEGASCALE_NUM_SLICES", "1"))
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or slices > 1:
        return True
    # A TPU VM: its metadata, which JAX reads, say whether it is part of something larger.
    return any(os.path.exists(f"/dev/{chip}") for chip in ("accel0", "vfio/0")) and (
        importlib.util.find_spec("libtpu") is not None
    )


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of a run, if there are any; call it before JAX is used.

    coordinator: HOST:PORT of process 0, processes: how many, process: which one this is, from 0.
    All None: found where a cluster says so, otherwise a run of one process.

    Raises `ValueError` when only some are given, and when the others do not come.
    """
    given = (coordinator, processes, process)
    if all(value is None for value in given):
        if several_expected():
            _join(None, None, None)
        return
    if any(value is None for value in given):
        raise ValueError("--coordinator, --processes and --process: all three are needed, or none")
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(f"--process={process}: from 0 to --processes={processes} minus 1")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(
            f"--coordinator={coordinator!r}: HOST:PORT is needed, such as 10.0.0.2:8476"
        )
    _join(coordinator, processes, process)


def _join(coordinator, processes, process) -> None:
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ValueError(f"the processes of this run do not find each other: {reason}") from error
    # Connections are made here, where all arrive at once: see `connect`.
    multihost_utils.sync_global_devices("joined")


def connect(mesh: Mesh) -> None:
    """Makes the connections that exchanges over a mesh need; every process calls it.

    Between CPUs a process waits half a minute for the others while a connection is made, but for as
    long as it takes while one is used. Without this a process that compiles, or reads its data, for
    longer than the others would end the run.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return
    multihost_utils.sync_global_devices("mesh")
    spread = tuple(axis for axis, size in mesh.shape.items() if size > 1)
    for axes in dict.fromkeys([spread, *((axis,) for axis in spread)]):
        summed = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x, axes),
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
        )
        jax.block_until_ready(jax.jit(summed)(np.float32(0)))


def is_main() -> bool:
    """Whether this process writes logs, pictures and results."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """(index, count): which part of every batch this process reads."""
    return jax.process_index(), jax.process_count()


def rows(size: int) -> slice:
    """Which of `size` rows of a global batch this process reads; the processes divide `size`."""
    index, count = shard()
    part = size // count
    return slice(index * part, (index + 1) * part)


_asked = itertools.count()


def stop_now(asked: bool) -> bool:
    """Whether all processes stop here; each of them has to ask equally often.

    asked: this process got SIGTERM. Of several processes JAX takes the signal itself and finds the
    call at which all of them can stop: the next one after the furthest, so calls are counted. Steps
    of a run would not do: they start anywhere, and several may make one call.
    """
    if jax.process_count() == 1:
        return asked
    return multihost_utils.reached_preemption_sync_point(next(_asked))


def whole(leaf) -> np.ndarray:
    """All of an array on the host, also where each process holds a part of it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def from_main(value):
    """What the first process holds (JSON values): a shared disk may lag behind on the others."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, len(text))] = text[:size]
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)).decode())


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """The first process goes through the block alone, then the others: it prepares, they find."""
    several = jax.process_count() > 1
    if several and not is_main():
        multihost_utils.sync_global_devices(name)
    try:
        yield
    finally:
        if several and is_main():
            multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def together(kind: type[ValueError] = ValueError) -> Iterator[None]:
    """A `ValueError` of one process inside the block is raised by all, as a `kind` elsewhere."""
    found: ValueError | None = None
    try:
        yield
    except ValueError as error:
        found = error
    if jax.process_count() > 1:
        message = "" if found is None else (str(found) or type(found).__name__)
        padded = np.zeros(_LONGEST, np.uint8)
        encoded = np.frombuffer(message.encode()[:_LONGEST], np.uint8)
        padded[: len(encoded)] = encoded
        everyone = multihost_utils.process_allgather(padded)
        told = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in everyone]
        first = next((text for text in told if text), None)
        if found is None and first is not None:
            raise kind(first)
    if found is not None:
        raise found
