"""What devices exchange in a train step: parameters that they share, and what trains, once.

Phase 1 of FunLoRA is in `test_step.py`. The step of `guide` has the one of `finetune` in it.
"""

import jax
import pytest
import tiny

from flcl.cost import hlo, programs
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.runs.setup import prepare

# The program is only looked at.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def run_of(data, method, dtype, strategy):
    if method in ("funlora", "guide"):
        adapter = {"adapter__strategy": strategy} if strategy else {}
        return tiny.settings_of(data, method, phase1__groups=2, phase2__groups=2, **adapter)
    return tiny.classifier_of(data, method, model__dtype=dtype)


def nbytes(leaf, dtype=None):
    return leaf.size * (leaf.dtype if dtype is None else jax.numpy.dtype(dtype)).itemsize


@pytest.mark.parametrize(
    ("method", "phase", "dtype", "strategy", "fsdp"),
    [
        ("funlora", 2, "float32", "map", 2),
        ("funlora", 2, "float32", "loop", 2),
        ("guide", 2, "float32", None, 2),
        ("fmlora", 1, "bfloat16", None, 2),
        ("fmlora", 2, "bfloat16", None, 2),
        ("sd_lora", 2, "bfloat16", None, 2),
        ("vit_finetune", 2, "bfloat16", None, 2),
    ],
)
def test_only_shared_parameters_and_one_gradient_in_float32(
    data, method, phase, dtype, strategy, fsdp
):
    setup = prepare(run_of(data, method, dtype, strategy))[0]
    mesh = meshes.make_mesh(fsdp)
    lowered = programs.lower_step(setup.method, phase, mesh)
    text = lowered.compile(compiler_options=_QUICK).as_text()
    found = {each["kind"]: each for each in hlo.summary(hlo.collectives(text, jax.device_count()))}
    trainable, frozen = jax.eval_shape(
        lambda memory, key: setup.method.begin(memory, setup.data.stream.tasks[phase - 1], key),
        programs.abstract_memory(setup.method),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    wanted = sum(map(nbytes, jax.tree.leaves(trainable)))
    if method == "funlora" and phase == 2:  # only the rows of the two classes of a batch
        wanted = wanted * 2 / 4
    # Of the loss, too; not of parameters whose gradient XLA knows to be zero.
    assert 0.9 * wanted < found["all-reduce"]["bytes"] <= wanted + 8
    assert found["all-reduce"]["count"] == 1
    shared = [
        nbytes(leaf)
        for tree in (trainable, frozen)
        for leaf, placement in zip(
            jax.tree.leaves(tree), jax.tree.leaves(sharding.of_tree(tree, mesh)), strict=True
        )
        if "fsdp" in placement.spec
    ]
    assert bool(shared) == (fsdp > 1)
    assert set(found) == ({"all-reduce", "all-gather"} if shared else {"all-reduce"})
    if shared:
        assert found["all-gather"]["bytes"] <= sum(shared)  # no image and no activation
