"""The classes of a run as files: what a file holds is what the run samples with."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import flcl
from flcl import methods
from flcl.adapters import artifact
from flcl.data.sequence.stream import make_stream
from flcl.data.sources import load_source
from flcl.models.unet import UNet
from flcl.runs.outside.class_files import file_names


@pytest.fixture(scope="module")
def run(finished):
    """The finished tiny run."""
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def memory(run):
    """Its memory after the last task, on the host."""
    return jax.tree.map(np.asarray, run._memory(3))


def test_the_list_has_every_class_with_its_task_and_size(run):
    listed = run.classes()
    assert [entry.name for entry in listed] == ["ant", "bee", "cat", "dog", "eel", "fox"]
    assert [entry.id for entry in listed] == [0, 1, 2, 3, 4, 5]
    assert [entry.task for entry in listed] == [1, 1, 2, 2, 3, 3]
    # Convolutions 0-3 of the tiny network: 1 -> 8 and three of 8 -> 8; p = 2 alphas and omegas.
    assert {entry.parameters for entry in listed} == {(1 + 8) + 3 * (8 + 8) + 4 * (2 + 2)}
    assert {entry.bytes for entry in listed} == {4 * listed[0].parameters}


def test_a_class_file_holds_the_factors_bit_by_bit(run, memory, tmp_path):
    paths = run.export_classes(["dog", 4], tmp_path / "out")
    assert [path.name for path in paths] == ["dog.safetensors", "eel.safetensors"]
    for path, number in zip(paths, (3, 4), strict=True):
        about, factors = artifact.read_class(path)
        assert factors.keys() == memory["bank"].keys()
        for name, entry in memory["bank"].items():
            assert factors[name].keys() == entry.keys()
            for kind, bank in entry.items():
                np.testing.assert_array_equal(factors[name][kind], bank[number])
        assert (about.label, about.p, about.steps, about.image) == (number, 2, 6, (8, 1))
        assert about.trunk == artifact.trunk_digest(memory["trunk"])
    one, other = (artifact.read_class(path).about for path in paths)
    assert one.sha256 != other.sha256
    assert one.sources != other.sources  # they are of two tasks


def test_equal_exports_are_equal_bytes(run, tmp_path):
    (first,) = run.export_classes(["cat"], tmp_path / "a")
    (second,) = run.export_classes([2], tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_the_trunk_file_is_the_trunk(run, memory, tmp_path):
    path = run.export_trunk(tmp_path / "trunk.safetensors")
    shapes = {name: value.shape for name, value in artifact.flat(memory["trunk"]).items()}
    about, parameters = artifact.read_trunk(path, shapes)
    jax.tree.map(np.testing.assert_array_equal, parameters, memory["trunk"])
    assert about.model["width"] == 8 and about.model["multipliers"] == [1]


def test_a_merged_network_is_an_ordinary_unet_with_the_velocities_of_the_class(run, tmp_path):
    (path,) = run.export_classes(["cat"], tmp_path, merged=True)
    about, parameters = artifact.read_merged(path)
    assert about.name == "cat" and about.label == 2
    method = run._setup.method
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    t = jnp.linspace(0.0, 1.0, 4)
    network = UNet(run.settings.model, channels=1)
    given = jax.jit(network.apply)({"params": parameters}, x, t)
    velocity = jax.jit(lambda parameters: method.velocity(parameters)(x, t))
    expected, other = (velocity(method.class_parameters(run._memory(3), k)) for k in (2, 3))
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert np.abs(given - other).max() > 1e-3


def test_files_that_are_there_stay_unless_they_may_go(run, tmp_path):
    (path,) = run.export_classes(["cat"], tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="cat.safetensors: exists already"):
        run.export_classes(["ant", "cat"], tmp_path)
    assert path.read_bytes() == b"mine" and not (tmp_path / "ant.safetensors").exists()
    with pytest.raises(ValueError, match="exists already"):
        run.export_trunk(path)
    run.export_classes(["cat"], tmp_path, overwrite=True)
    assert artifact.read_class(path).about.name == "cat"


def test_no_argument_means_every_learned_class(run, tmp_path):
    assert len(run.export_classes(None, tmp_path)) == 6


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ([], "at least one is needed"),
        (["caat"], "class 'caat' is not in this run.* Did you mean 'cat'?"),
        ([6], "class 6 is not in this run: accepted are 0-5"),
    ],
)
def test_a_class_that_is_not_there(classes, why, run, tmp_path):
    with pytest.raises(ValueError, match=why):
        run.export_classes(classes, tmp_path)


def test_a_file_of_this_trunk_is_read_and_one_of_another_is_refused(run, memory, tmp_path):
    (path,) = run.export_classes(["cat"], tmp_path)
    about, factors = run.read_class(path)
    assert about.name == "cat"
    np.testing.assert_array_equal(factors["input"]["a"], memory["bank"]["input"]["a"][2])
    described = {k: v for k, v in about.__dict__.items() if k not in ("layers", "sha256")}
    ours, other = about.trunk, "0" * 64
    path.write_bytes(artifact.class_bytes(factors, **{**described, "trunk": other}))
    with pytest.raises(ValueError, match=f"trunk {other}, and this run has the trunk {ours}"):
        run.read_class(path)
    path.write_bytes(artifact.class_bytes(factors, **{**described, "image": (16, 1)}))
    with pytest.raises(ValueError, match=r"image is \[16, 1\], this run has \[8, 1\]"):
        run.read_class(path)


def test_a_class_that_is_not_learned_yet(finished, tmp_path):
    begun = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(begun / "checkpoints" / "tasks" / "3")
    run = flcl.open_run(begun)
    assert [entry.task for entry in run.classes()] == [1, 1, 2, 2, None, None]
    with pytest.raises(ValueError, match=r"class 5 \(fox\) is not learned after task 2"):
        run.export_classes(["fox"], tmp_path)
    assert len(run.export_classes(None, tmp_path / "out")) == 4


def test_names_of_files_are_different_and_lead_nowhere():
    hostile = ["../up", "a/b", "a_b", "A_B", "", ".hidden", "n" * 300, "n" * 299, "\u732b"]
    hostile += ["x\0y", "\ud800", "\U00020000" * 80]
    names = file_names(hostile)
    assert len({name.casefold() for name in names}) == len(hostile)
    for name in names:
        assert "/" not in name and not name.startswith(".") and len(name.encode()) < 230
    assert names[8] == "\u732b" and file_names(["cat", "dog"]) == ["cat", "dog"]


def test_a_method_whose_classes_share_everything(data):
    run = tiny.settings_of(data, "finetune")
    method = methods.build(run, make_stream(run.stream, load_source(run.data)))
    with pytest.raises(ValueError, match="method=finetune: all classes share one network"):
        method.trunk_and_factors({}, 0)
