"""One run in several processes: how they start and agree; only the first process writes.

Every process runs the same program on the same global arrays. An error that only one process can
see (a missing file on its machine, a lock that another run has) is sent to all, so all stop
together and do not wait for each other.
"""

import contextlib
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

_LONGEST = 1_000  # bytes of a message between processes


def several_expected(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM, Open MPI, GKE or a TPU VM says that this process is one of several.

    There, JAX finds the address, the count and the number of the processes itself.
    """
    # Only inside `srun`: the batch script also sees the number of tasks, but is not a task itself.
    tasks = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in environment else "1"
    if int(tasks) > 1 or int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return True
    if environment.get("JAX_PLATFORMS", "tpu") not in ("", "tpu", "tpu,cpu"):
        return False
    slices = int(environment.get("MEGASCALE_NUM_SLICES", "1"))
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or slices > 1:
        return True
    # On a TPU VM, JAX reads from its metadata whether it is part of a larger slice.
    return any(os.path.exists(f"/dev/{chip}") for chip in ("accel0", "vfio/0")) and (
        importlib.util.find_spec("libtpu") is not None
    )


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of a run, if there are any; call it before JAX is used.

    coordinator: HOST:PORT of process 0; processes: their number; process: the number of this one,
    from 0. All None = the cluster gives these values, or the run has one process.

    Raises `ValueError` if only some are given, and if the other processes do not join.
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
    # Connections are made here, because all processes arrive at the same time: see `connect`.
    multihost_utils.sync_global_devices("joined")


def connect(mesh: Mesh) -> None:
    """Makes the connections between processes that a mesh needs; every process calls it.

    On CPUs, a process waits only half a minute for the others when a connection is made, but
    without a limit when it is used. Without this call, a process that compiles or reads data for
    longer than the others would end the run.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return
    multihost_utils.sync_global_devices("mesh")
    # Over all devices and along each axis: these are the groups that exchange values in a run.
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
    """(index, count): the part of every batch that this process reads."""
    return jax.process_index(), jax.process_count()


def rows(size: int) -> slice:
    """The rows of a global batch of `size` that this process reads; the count divides `size`."""
    index, count = shard()
    local = size // count
    return slice(index * local, (index + 1) * local)


_asked = itertools.count()


def stop_now(asked: bool) -> bool:
    """Whether all processes stop here; all of them must call this equally often.

    asked: whether this process was asked to stop. If there are several processes, JAX handles
    SIGTERM itself and finds the call at which all can stop: the call after that of the process that
    is furthest. So calls are counted. Steps cannot be counted instead, because a resumed run does
    not start at step 0, and one call may make several steps.
    """
    if jax.process_count() == 1:
        return asked
    return multihost_utils.reached_preemption_sync_point(next(_asked))


def whole(leaf) -> np.ndarray:
    """The whole array on the host, also if each process has only a part of it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        # `tiled`: parts are joined along their own axis, without a new axis for the processes.
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def from_main(value):
    """JSON values of the first process; the other processes may see a shared disk later."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    # The length first, because a broadcast needs the same shape in every process.
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, len(text))] = text[:size]
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)).decode())


def read_by_main(read: Callable[[], object]):
    """What `read()` gives in the first process, JSON values; its error is one of all processes."""
    with together():
        value = read() if is_main() else None
    return from_main(value)


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """The first process runs the block first, and may prepare files; then the others run it."""
    several = jax.process_count() > 1
    # The others wait here until the first process has left its block.
    if several and not is_main():
        multihost_utils.sync_global_devices(name)
    try:
        yield
    # Also after an error, because the others are waiting.
    finally:
        if several and is_main():
            multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def together(kind: type[ValueError] = ValueError) -> Iterator[None]:
    """If one process raises an error inside the block, the others raise it, too.

    A `ValueError` becomes a `kind` there, an `OSError` stays one. Other exceptions are defects.
    """
    local_error: ValueError | OSError | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        local_error = error
    if jax.process_count() > 1:
        message = ""
        if local_error is not None:
            sign = "!" if isinstance(local_error, OSError) else "="
            message = sign + (str(local_error) or type(local_error).__name__)
        padded = np.zeros(_LONGEST, np.uint8)
        encoded = np.frombuffer(message.encode()[:_LONGEST], np.uint8)
        padded[: len(encoded)] = encoded
        # Every process sends a message, most of them empty, so all learn of the first error.
        everyone = multihost_utils.process_allgather(padded)
        told = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in everyone]
        first = next((text for text in told if text), None)
        if local_error is None and first is not None:
            raise (OSError if first[0] == "!" else kind)(first[1:])
    if local_error is not None:
        raise local_error
