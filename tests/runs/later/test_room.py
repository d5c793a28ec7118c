"""The room of a model doubles: old values stay, and new ones do not depend on the room."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from flcl import methods, settings
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import TaskData
from flcl.devices import mesh as meshes
from flcl.rng import stream_key
from flcl.runs.memory import empty_memory, grown
from flcl.runs.setup import Setup

SCALED = {"lora__combine": "scaled", "lora__coverage": True, "rank__selector": "centred"}
CASES = {
    "funlora": {},
    "ddgr": {},  # the network of fine-tuning, and a classifier
    "jdcl": {},
    "fmlora": SCALED,
    "sd_lora": {},
    "inflora": {},
    "rsiat": {},
    "vit_finetune": {"heads__fit": ("ridge", "gaussian")},
}


@pytest.mark.parametrize("method", CASES)
def test_what_is_new_has_its_first_values_and_the_rest_stays(method, tmp_path):
    generates = issubclass(settings.RUNS[method], settings.GeneratorRun)
    make = tiny.settings_of if generates else tiny.classifier_of
    run = make(tmp_path / "none.npz", method, **CASES[method])
    stream = make_stream(run.stream, placeholder(6))
    stream = dataclasses.replace(stream, capacity=2, slots=1)
    setup = Setup(run, TaskData(None, stream), None, meshes.make_mesh())
    last = stream.tasks[-1]
    small, key = empty_memory(setup), stream_key(run.seed, "init")
    large = jax.jit(setup.of_task(last).method.init)(key)
    touched = jax.tree.map(lambda leaf: leaf + 1 if leaf.dtype != bool else ~leaf, small)
    after = grown(setup, touched, last)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, large)
    changed = 0
    for before, new, fresh, start in zip(
        *map(jax.tree.leaves, (touched, after, large, small)), strict=True
    ):
        corner = tuple(map(slice, before.shape))
        # A small room has the first values of a large one.
        np.testing.assert_allclose(start, fresh[corner], atol=1e-6)
        np.testing.assert_array_equal(new[corner], before)
        rest = np.ones(new.shape, bool)
        rest[corner] = False
        np.testing.assert_allclose(np.asarray(new)[rest], np.asarray(fresh)[rest], atol=1e-6)
        changed += rest.any()
    assert changed >= 1
    assert grown(setup, after, last) is after


def test_a_method_of_the_same_room_is_the_same_object(tmp_path):
    run = tiny.settings_of(tmp_path / "none.npz")
    setup = Setup(run, TaskData(None, make_stream(run.stream, placeholder(6))), None, None)
    made = {setup.of_task(task).method for task in setup.data.stream.tasks}
    assert len(made) == 1 and isinstance(made.pop(), methods.METHODS["funlora"])
