"""One of two processes: connects, says so, then exchanges along every axis. For test_processes."""

import sys

import jax
import numpy as np
from jax.sharding import PartitionSpec

from flcl.devices import hosts
from flcl.devices import mesh as meshes

if __name__ == "__main__":
    coordinator, processes, process = sys.argv[1:]
    hosts.start(coordinator, int(processes), int(process))
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
