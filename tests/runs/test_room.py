"""What no machine can hold or count is refused, by its key, before anything is trained."""

import pytest
from edited import small, with_value

from flcl import methods
from flcl.data import base
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import TaskData
from flcl.devices import mesh as meshes
from flcl.runs import room
from flcl.settings import bridge


@pytest.fixture
def machine(monkeypatch):
    """A mesh of one device, on a machine with 4 GiB."""
    monkeypatch.setattr(room, "_host_memory", lambda: 4 * room.GIB)
    return meshes.make_mesh(devices=meshes.make_mesh().devices.flat[:1])


def built(run):
    stream = make_stream(run.stream, base.placeholder(run.stream.capacity))
    return methods.build(run, stream), stream


@pytest.mark.parametrize(
    ("method", "changes", "line"),
    [
        (
            "funlora",
            {"data.image_size": 4096, "model.attention": ()},
            "phase1.batch_size=128: with data.image_size=4096 its images need 8.0 GiB, and the "
            "devices have 4.0 GiB; lower one of the two",
        ),
        ("fmlora", {"train.eval_batch_size": 10**6, "data.image_size": 64}, "train.eval_batch_siz"),
    ],
)
def test_images_of_a_batch(method, changes, line, machine):
    edited = small(method)
    room.check_images(bridge.freeze(edited), machine)
    edited.update_from_flattened_dict(changes)
    with pytest.raises(ValueError) as caught:
        room.check_images(bridge.freeze(edited), machine)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("funlora", "stream.capacity", 1_000_000),
        ("funlora", "model.width", 65_536),
    ],
)
def test_parameters(method, name, value, machine):
    edited = small(method)
    edited.stream.capacity = 10
    run = bridge.freeze(edited)
    room.check_model(run, built(run)[0], machine)
    edited.update_from_flattened_dict({name: value})
    run = bridge.freeze(edited)
    with pytest.raises(ValueError, match=f"{name}={value}.*: the parameters need .* GiB, and a d"):
        room.check_model(run, built(run)[0], machine)


def test_generated_images(machine):
    run = bridge.from_dict(with_value("judge.images_per_class", 1_000_000))
    room.check_generated(run, 10)
    with pytest.raises(ValueError, match=r"^judge\.images_per_class=1000000: .* 1000 classes need"):
        room.check_generated(run, 1000)
    run = bridge.from_dict(with_value("replay.images_per_class", 10**6, "generative_replay"))
    with pytest.raises(ValueError, match=r"^replay\.images_per_class=1000000: "):
        room.check_generated(run, 1000)


def test_pairs_of_noise_and_images(machine):
    """Two arrays of 128 x 128 grey pixels in float32: 128 KiB a pair, 32,768 pairs in 4 GiB."""
    edited = small("funlora")
    edited.straighten.update(steps=1, pairs=30_000)
    edited.update_from_flattened_dict({"data.image_size": 128, "model.attention": ()})
    room.check_generated(bridge.freeze(edited), 10)  # 3.66 GiB
    edited.straighten.pairs = 40_000
    with pytest.raises(ValueError, match=r"^straighten.pairs=40000: the pairs of a class need 4.9"):
        room.check_generated(bridge.freeze(edited), 10)


@pytest.mark.parametrize("method", ["funlora", "fmlora"])
def test_steps(method):
    group = "judge" if method == "funlora" else "train"
    edited = small(method)
    edited[group].update(epochs=1e6, batch_size=1)
    edited.stream.capacity = 10
    run = bridge.freeze(edited)
    made, stream = built(run)
    for images, fits in ((2_000, True), (3_000, False)):
        split = base.make_split(range(images), [0] * images)
        source = base.Source("x", split, split, ("a",))
        if fits:
            room.check_steps(run, made, TaskData(source, stream))
            continue
        with pytest.raises(ValueError, match=f"^{group}.epochs=1000000.0: 3e.09 steps for 3000"):
            room.check_steps(run, made, TaskData(source, stream))
