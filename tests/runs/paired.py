"""One of two processes that make runs together, one after another: `paired.py READ WRITE`.

It reads one line of JSON for each job from the pipe READ, which both processes get in the same
order, and answers with one. It ends when the pipe is closed, or as the job ends it: `pair.py`
starts it again. Equal runs share their compiled programs.
"""

import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path

import jax
import killed
import numpy as np
import pytest
import tiny
from jax._src import cache_key, compiler, distributed
from jax.sharding import PartitionSpec

import flcl
from flcl import compiling, programs
from flcl.devices import hosts
from flcl.devices import mesh as meshes
from flcl.report import page
from flcl.report.pictures import canvas


def start(address: str, number: int) -> None:
    """Joins the other process."""
    hosts.start(address, 2, number)


def connect() -> None:
    """Connects, says so, then exchanges along every axis."""
    mesh = meshes.make_mesh(fsdp=2)
    hosts.connect(mesh)
    print("connected", flush=True)
    for axes in (("data", "fsdp"), ("data",), ("fsdp",)):
        add = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x + 1, axes),
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
        )
        print(float(jax.jit(add)(np.float32(0))), flush=True)


def train(data: str, workdir: str, method: str, changes: dict, point: str = "never") -> None:
    """Makes or continues a tiny run; point: a moment of `killed`."""
    with pytest.MonkeyPatch.context() as patch:
        killed.install(point, Path(workdir), patch, kill=lambda: _die_after_a_save(workdir))
        flcl.run(tiny.run_of(Path(data), method, **_tuples(changes)), workdir)


def _die_after_a_save(workdir: str) -> None:
    """Dies when a save inside a task is whole: both processes write it in the background."""
    saves, end = Path(workdir) / "checkpoints" / "running", time.monotonic() + 60
    while not list(saves.glob("*/commit_success.txt")) and time.monotonic() < end:
        time.sleep(0.05)
    killed.die()


def train_both(data: str, workdir: str, changes: dict) -> None:
    """Makes or continues a tiny generator, and RSIAT with it."""
    flcl.run(tiny.both_of(Path(data), "rsiat", **_tuples(changes)), workdir)


def _tuples(changes: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}


def learn(workdir: str, data: str) -> None:
    """Teaches a finished run what was not planned."""
    flcl.open_run(workdir).learn(data)


def command(words: list[str]) -> int:
    """Runs the program `words[0]` as the command line does.

    At its end it gives SIGTERM back to Python, so a later job of these processes is not asked to
    stop.
    """
    sys.argv[:] = ["flcl", *words[1:]]
    return programs.run(words[0])


JOBS = {job.__name__: job for job in (start, connect, train, train_both, learn, command)}


def _prepare() -> None:
    """Makes a process cheap that traces and compiles far more than it computes."""
    gc.set_threshold(100_000, 20, 20)  # as in `conftest`
    page.write_page = lambda workdir, results=None: workdir / "report.html"
    canvas.DPI = 30
    # Both processes run the same programs, so the first one compiles them and the second one gets
    # them from it (`pair` switches that on). But JAX's key of a program names the devices that a
    # process has itself: without them, both have one key.
    cache_key._hash_accelerator_config = cache_key._hash_devices
    # Programs on the devices of one process alone differ. JAX lets only the first process write
    # into the cache: the second one would compile its own in every run of the tests.
    write = compiler._cache_write

    def write_as_first(*arguments) -> None:
        with _as_first():
            write(*arguments)

    compiler._cache_write = write_as_first


@contextlib.contextmanager
def _as_first():
    state = distributed.global_state
    number, state.process_id = state.process_id, 0
    try:
        yield
    finally:
        state.process_id = number


def main() -> None:
    """Does the jobs that the pipe names."""
    _prepare()
    read, write = map(int, sys.argv[1:])
    for line in os.fdopen(read):
        job, arguments = json.loads(line)
        code, error = 0, ""
        try:
            code = JOBS[job](**arguments) or 0
        except ValueError as refused:
            code, error = 2, str(refused)
        sys.stdout.flush()
        os.write(write, json.dumps([code, error]).encode() + b"\n")
    compiling.forget_programs()


if __name__ == "__main__":
    main()
