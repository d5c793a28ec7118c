"""What is read from the text of a compiled program."""

import jax
import jax.numpy as jnp

from flcl.cost import hlo
from flcl.devices import mesh as meshes
from flcl.devices import sharding

# Written by hand, in every notation of groups and of asynchronous exchanges.
TEXT = """
HloModule step, num_partitions=8

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %inner = f32[4]{0} all-reduce(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

ENTRY %main {
  %a = f32[16,8]{1,0:T(8,128)S(1)} parameter(0)
  %both = (f32[100]{0:T(128)}, bf16[50]{0:T(128)(2,1)}) all-reduce(%a), replica_groups=[1,8]<=[8]
  %ag = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%a), replica_groups=[1,8]<=[8], dims={0}
  %agd = f32[16,8]{1,0} all-gather-done(%ag)
  %rs = f32[2,8]{1,0:T(8,128)S(1)} reduce-scatter(%a), replica_groups=[2,4]<=[8], dimensions={0}
  %mesh = f32[6]{0} all-reduce(%a), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}
  %none = f32[6]{0} all-reduce(%a), replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_1'}
  %one = f32[6]{0} all-gather(%a), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}
  %cp = (f32[3]{0}, f32[3]{0}, u32[], u32[]) collective-permute-start(%c), pairs={{0,1}}
  %a2a = (pred[4]{0}, pred[4]{0}) all-to-all(%a, %b)
  ROOT %use = f32[6]{0} add(%all-reduce.1, %all-gather.2), metadata={op_name="all-reduce(x)"}
}
"""


def test_collectives_of_a_text_written_by_hand():
    assert hlo.collectives(TEXT, 8) == [
        ("all-reduce", 16, 4),
        ("all-reduce", 500, 8),
        ("all-gather", 512, 8),
        ("reduce-scatter", 256, 4),
        ("all-reduce", 24, 2),
        ("collective-permute", 12, 8),
        ("all-to-all", 8, 8),
    ]


def test_summary_adds_up_each_kind():
    summary = hlo.summary(hlo.collectives(TEXT, 8))
    assert summary[0] == {"kind": "all-reduce", "count": 3, "bytes": 540}
    assert [line["kind"] for line in summary] == [
        k for k in hlo.KINDS if k != "collective-broadcast"
    ]


def test_a_sum_over_a_sharded_axis_is_one_all_reduce():
    mesh = meshes.make_mesh()
    program = jax.jit(
        lambda x: x.sum(0),
        in_shardings=sharding.over_devices(mesh),
        out_shardings=sharding.replicated(mesh),
    )
    text = program.lower(jax.ShapeDtypeStruct((16, 10), jnp.float32)).compile().as_text()
    assert hlo.collectives(text, mesh.size) == [("all-reduce", 40, mesh.size)]
