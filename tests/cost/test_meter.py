"""What is counted of a program, and what is said where nothing can be counted."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from flcl import methods
from flcl.cost import meter, programs
from flcl.cost.chips import CHIPS
from flcl.cost.targets import Target
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.devices import mesh as meshes


def method_of(run):
    return methods.build(run, make_stream(run.stream, placeholder(6)).exact())


def product(rows: int = 64):
    """A matrix product of 2 x rows x 32 x 16 FLOPs."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((rows, 32), (32, 16))]
    return jax.jit(jnp.dot).lower(*shapes)


def test_flops_are_those_of_the_formula_and_unknown_on_a_gpu():
    lowered = product()
    assert meter.written_flops(lowered) == 2 * 64 * 32 * 16
    compiled = lowered.compile()
    assert meter.compiled_flops(compiled, "cpu") == 2 * 64 * 32 * 16
    assert meter.compiled_flops(compiled, "gpu") is None


def test_memory_is_of_arguments_and_outputs_and_a_donated_one_counts_once():
    compiled = product().compile()
    memory = meter.memory_of(compiled)
    assert memory["arguments"] == 4 * (64 * 32 + 32 * 16) and memory["outputs"] == 4 * 64 * 16
    assert meter.device_bytes(compiled) >= memory["arguments"] + memory["outputs"]
    vector = jax.ShapeDtypeStruct((1000,), jnp.float32)
    donating = jax.jit(lambda x: x + 1, donate_argnums=0).lower(vector).compile()
    assert meter.device_bytes(donating) == 4000


@pytest.mark.parametrize(("text", "count"), [("1.5G", 3 * 2**29), ("200.0M", 200 * 2**20)])
def test_a_refused_program_says_what_it_needs(text, count):
    refused = f"Ran out of memory; total memory required by the program ({text}) is too much"
    assert meter.required_bytes(None, refused) == count
    assert meter.required_bytes(None, "Ran out of memory") is None
    assert meter.required_bytes({"peak": 10, "code": 2}, None) == 12


@pytest.mark.parametrize(("platform", "chip"), [("tpu", "v5e"), ("gpu", "h100")])
def test_the_work_on_gpus_is_that_of_the_written_program_divided(platform, chip):
    """A product stands for the program: as written, and as divided over four devices."""
    method, mesh = (
        method_of(tiny.classifier_of("nowhere", train__batch_size=64)),
        meshes.make_mesh(devices=jax.devices()[:4]),
    )
    program = programs.Program("phase1", "train.batch_size", lambda *_: product())
    target = Target("there:4", CHIPS[chip], platform, jax.devices()[:4])
    work = meter.work_of(program, method, mesh, target, product(rows=16 + 8).compile())
    whole = 2 * 64 * 32 * 16
    assert work["one_device_flops"] == whole
    if platform == "gpu":
        assert work["flops_per_device"] == whole / 4
        assert work["replication"] is None and work["uncounted"] == meter.LIBRARIES
    else:
        assert work["flops_per_device"] == whole * 24 / 64
        assert work["replication"] == pytest.approx(1.5) and work["uncounted"] is None


def test_a_batch_that_is_rounded_up_is_no_replication():
    method = method_of(tiny.classifier_of("nowhere", train__eval_batch_size=50))
    mesh = meshes.make_mesh(devices=jax.devices()[:3])  # 51 images, 17 on each
    program = programs.Program("features", "train.eval_batch_size", lambda *_: product(50))
    target = Target("there:3", CHIPS["v5e"], "tpu", jax.devices()[:3])
    work = meter.work_of(program, method, mesh, target, product(17).compile())
    assert work["replication"] == pytest.approx(1.0)
