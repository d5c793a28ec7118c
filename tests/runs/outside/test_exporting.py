"""Programs that a process without flcl loads: their images, their arguments, their files."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from jax import export
from safetensors.numpy import save_file

import flcl
from flcl import methods
from flcl.data.sequence.stream import TaskStream
from flcl.devices import mesh as meshes
from flcl.runs.opened import run as opened_module
from flcl.runs.outside import exporting

# JAX stores programs with it; the programs themselves are made without it.
FLATBUFFERS = importlib.util.find_spec("flatbuffers")
needs_flatbuffers = pytest.mark.skipif(FLATBUFFERS is None, reason="flatbuffers is missing")

ALONE = """
import sys

sys.modules |= dict.fromkeys(("flcl", "flax", "diffrax", "optax", "chex"))
import numpy as np
from jax import export
from safetensors.numpy import load_file

def program(path):
    return export.deserialize(bytearray(open(path, "rb").read()))

indices = np.arange(8, dtype=np.int32)
np.savez(
    "drawn.npz",
    inside=program("inside.jax").call(2, 4, indices),
    unknown=program("inside.jax").call(2, 6, indices),
    rest=program("inside.jax").call(2, 4, indices[5:]),
    beside=program("beside.jax").call(load_file("beside.safetensors"), 2, 0, indices),
    argument=program("first.jax").call(load_file("fox.safetensors"), 2, 5, indices),
)
"""


@pytest.fixture
def run(finished, monkeypatch):
    """The finished tiny run on one device, as a program is."""
    single = meshes.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(opened_module.meshes, "make_mesh", lambda *_: single)
    return flcl.open_run(finished)


@needs_flatbuffers
def test_a_process_with_jax_alone_draws_the_same_bits(run, tmp_path):
    inside = run.export(tmp_path / "inside.jax")
    assert inside.files == (tmp_path / "inside.jax",)
    assert inside.arguments == ("seed", "label", "indices")
    assert inside.labels == dict(zip(run.class_names, range(6), strict=True))
    beside = run.export(tmp_path / "beside.jax", weights="beside", solver="dopri5")
    assert beside.files == (tmp_path / "beside.jax", tmp_path / "beside.safetensors")
    assert beside.arguments == ("weights", *inside.arguments)
    # A program of the first task draws a class that came later: its factors are an argument.
    first = run.export(tmp_path / "first.jax", classes="argument", task=1)
    assert first.arguments == ("factors", *inside.arguments) and set(first.labels) == {"ant", "bee"}
    fox = run._setup.method.class_parameters(run._memory(3), 5)["factors"]
    arrays = {f"{layer}/{name}": np.asarray(v) for layer, f in fox.items() for name, v in f.items()}
    save_file(arrays, tmp_path / "fox.safetensors")

    # Nothing of the checkout is on the path of that process.
    environment = {**os.environ, "PYTHONPATH": str(Path(FLATBUFFERS.origin).parents[1])}
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, env=environment, check=True)
    with np.load(tmp_path / "drawn.npz") as arrays:
        drawn = dict(arrays)
    eel, fox = run.sample(["eel", "fox"], 8, seed=2).images
    ant = run.sample(["ant"], 8, seed=2, solver="dopri5").images[0]
    np.testing.assert_array_equal(drawn["inside"], eel)
    np.testing.assert_array_equal(drawn["beside"], ant)
    np.testing.assert_array_equal(drawn["argument"], fox)
    assert not drawn["unknown"].any()
    assert np.abs(drawn["rest"].astype(int) - eel[5:]).max() <= 1  # another size of the batch


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"classes": "both"}, "classes='both': accepted are inside, argument"),
        ({"weights": "both"}, "weights='both': accepted are inside, beside"),
        ({"platforms": ["gpu"]}, "platforms='gpu': accepted are cpu, cuda, tpu, rocm"),
        ({"platforms": "cpu"}, r"platforms='cpu': a list is needed"),
        ({"platforms": []}, r"platforms=\[\]: a list is needed"),
        ({"path": "model.safetensors", "weights": "beside"}, "the name of the weights; use model"),
        ({"solver": "rk9"}, "sample.solver='rk9'"),
        ({"task": 9}, "task=9"),
    ],
)
def test_what_cannot_be_exported_is_told_before_any_work(run, asked, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run.export(**{"path": tmp_path / "model.jax", **asked})
    assert list(tmp_path.iterdir()) == []


def test_weights_that_one_file_does_not_hold(run, monkeypatch):
    monkeypatch.setattr(exporting, "_MOST_INSIDE", 1000)
    with pytest.raises(ValueError, match="and one file holds 1,000; use weights='beside'"):
        run.export("model.jax")


STREAM = TaskStream("cil", tuple(range(6)), (2, 2, 2), False, 6)


def test_a_method_without_factors_has_no_class_as_an_argument():
    method = methods.shared(tiny.settings_of("six.npz", "finetune"), STREAM)
    memory = jax.eval_shape(method.init, jax.random.key(0))
    with pytest.raises(ValueError, match="a class of finetune is a part of the whole network"):
        exporting.sampling(method, method.run.sample, {"memory": memory}, True)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fmlora", {}),
        ("fmlora", {"model__features": "cls+mean", "model__registers": 2, "prompt__tokens": 0}),
        ("fmlora", {"model__dtype": "bfloat16", "model__remat": "blocks"}),
        ("first_session", {}),
        ("fmlora", {"prompt__init": "gated"}),
        ("frozen", {"heads__fit": ("class_mean", "lda", "ridge", "gaussian")}),
        ("rsiat", {}),
    ],
)
def test_every_classifier_has_programs_for_any_number_of_images(name, changes):
    run = tiny.classifier_of("six.npz", name, model__normalize="half", **changes)
    method = methods.shared(run, STREAM)
    memory = jax.eval_shape(method.init, jax.random.key(0))
    # Heads are solved on the host; the program depends on their shapes alone.
    solved = method.solved(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), memory))

    def scores(memory, solved, images):
        return method.scores(solved, method.features(memory, images))

    (count,) = export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((count, 8, 8, 3), np.uint8)
    program = export.export(jax.jit(scores), platforms=["cpu", "tpu"])(memory, solved, images)
    assert {leaf.shape for leaf in program.out_avals} == {(count, 6)}
