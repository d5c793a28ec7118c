"""What a weights file decides becomes part of the settings, and of the network."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from weight_files import SCALED, meta, tree, write

from flcl import methods
from flcl.data.sequence.stream import TaskStream

REGISTERS = dataclasses.replace(SCALED, registers=4)
STREAM = TaskStream("cil", tuple(range(6)), (2, 2, 2), False, 6)
SIZES = {"variant": "Nano/4", "layer_scale": True, "registers": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A DINOv2 with registers for images of 16 pixels."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    write(path, meta(tree(REGISTERS)))
    return path


def settings_of(weights, method="fmlora", **changes):
    values = {"model__variant": "weights", "data__image_size": 16} | changes
    return tiny.classifier_of(Path("six.npz"), method, model__weights=str(weights), **values)


@pytest.mark.parametrize("method", ["fmlora", "class_mean", "vit_finetune", "sd_lora"])
def test_a_run_has_the_sizes_of_its_weights_file(weights, method):
    resolved = methods.resolve(settings_of(weights, method))
    model = resolved.run.model
    assert {name: getattr(model, name) for name in SIZES} == SIZES
    assert (model.normalize, model.position_resize) == ("imagenet", "bicubic")
    assert "DINOv2 Nano/4, LayerScale, 4 register tokens, images norm" in resolved.note
    built = methods.build(resolved.run, STREAM)
    memory = jax.eval_shape(built.init, jax.random.key(0))
    assert memory["trunk"]["registers"].shape == (4, 64)
    loaded = built.load(memory, resolved.weights)["trunk"]
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, memory["trunk"])
    # A second time the settings are complete, and nothing changes.
    assert methods.resolve(resolved.run).run == resolved.run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora__rank": 65}, "lora.rank=65: exceeds the width 64 of model.variant='Nano/4'"),
        ({"lora__blocks": "5-6"}, "lora.blocks='5-6': accepted are all.*of the blocks 0 to 5"),
        ({"data__image_size": 18}, "data.image_size=18: must be a multiple of 4"),
        ({"model__variant": "Ti/4"}, "set model.variant=Nano/4"),
        ({"model__layer_scale": False}, "set model.layer_scale=True"),
    ],
)
def test_values_that_do_not_fit_the_file_are_refused(weights, changes, message):
    with pytest.raises(ValueError, match=message):
        methods.resolve(settings_of(weights, **changes))


def test_random_weights_have_the_sizes_of_b16():
    run = settings_of("random", data__image_size=224)
    for found in (methods.resolve(run).run.model, methods.sized(run).model):
        assert (found.variant, found.layer_scale, found.registers) == ("B/16", False, 0)
        assert (found.normalize, found.position_resize) == ("half", "bicubic")


def test_sizes_without_a_run(weights, tmp_path):
    model = methods.sized(settings_of(weights)).model
    assert {name: getattr(model, name) for name in SIZES} == SIZES
    # Without the file they must be set; nothing is downloaded for them.
    for missing in (tmp_path / "none.npz", "hub:someone/vit"):
        known = settings_of(missing, model__variant="S/14", data__image_size=14)
        assert methods.sized(known) == known
        built = methods.build(known, STREAM)
        assert built.describe()["trunk_parameters"] > 21_000_000
        with pytest.raises(ValueError, match=r"none\.npz|someone/vit"):
            methods.sized(settings_of(missing))
