"""What the files beside the weights say about their training."""

import dataclasses
import json

import numpy as np
import pytest
from weight_files import PLAIN, SCALED, SIZE, folder, timm, tree, write

from flcl.models.pretrained import load as pretrained


def test_a_folder_tells_its_normalisation(tmp_path):
    model = folder(tmp_path, {"num_attention_heads": 4, "layer_norm_eps": 1e-6})
    assert pretrained.load(model, SIZE).model.normalize == "half"
    said = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder(tmp_path, preprocessor=said)
    assert pretrained.load(model, SIZE).model.normalize == "imagenet"
    folder(tmp_path, preprocessor={"do_normalize": False, **said})
    assert pretrained.load(model, SIZE).model.normalize == "unit"
    clip = {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}
    folder(tmp_path, preprocessor=clip)
    with pytest.raises(ValueError, match="mean .0.481, .*; known are half, imagenet, unit"):
        pretrained.load(model, SIZE)
    chosen = dataclasses.replace(model, normalize="imagenet")
    assert pretrained.load(chosen, SIZE).model.normalize == "imagenet"


def test_timm_configuration_tells_its_normalisation(tmp_path):
    write(tmp_path / "model.safetensors", timm(tree()))
    about = {"pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    model = dataclasses.replace(PLAIN, weights=str(tmp_path))
    assert pretrained.load(model, SIZE).model.normalize == "imagenet"


@pytest.mark.parametrize("name", ["half", "imagenet", "unit"])
def test_normalization_of_known_colours(name):
    mean, std = pretrained.normalization(name)
    wanted = {
        "half": ([-1, 0, 1], [-1, 0, 1]),
        "imagenet": ([-2.11790, -2.03571, -1.80444], [2.24890, 2.42857, 2.64]),
        "unit": ([0, 0, 0], [1, 1, 1]),
    }[name]
    if name == "half":
        got = (np.float32([0, 0.5, 1]) - mean) / std
        np.testing.assert_allclose(got, wanted[0], atol=1e-6)
    else:
        np.testing.assert_allclose((0 - mean) / std, wanted[0], atol=1e-4)
        np.testing.assert_allclose((1 - mean) / std, wanted[1], atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_attention_heads": 8}, "has 4 attention heads, but .* trained with 8"),
        ({"layer_norm_eps": 1e-12}, "set model.layer_norm_eps=1e-12"),
        ({"hidden_act": "quick_gelu"}, "'quick_gelu'; only gelu"),
    ],
)
def test_what_shapes_do_not_show_is_checked(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        pretrained.load(folder(tmp_path, config), SIZE)


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
NULLS = {"mean": None, "std": None, "pretrained_cfg": None, "layer_norm_eps": None}
NULLS |= {"num_attention_heads": None, "hidden_act": None}


@pytest.mark.parametrize(
    ("config", "preprocessor", "normalize", "source"),
    [
        (IMAGENET, None, "imagenet", "as config.json says"),  # the flat form of older timm
        ({"pretrained_cfg": IMAGENET, "mean": [0, 0, 0]}, None, "imagenet", "as config.json says"),
        ({"mean": [0.0] * 3, "std": [1.0] * 3}, None, "unit", "as config.json says"),
        (IMAGENET, {"image_mean": 0.5, "image_std": 0.5}, "half", "as preprocessor_config.json"),
        (IMAGENET, {"image_mean": None, "image_std": None}, "imagenet", "as config.json says"),
        (IMAGENET, {"do_normalize": False}, "unit", "do_normalize=false"),
        (
            None,
            {"image_mean": 0.5, "image_std": 0.5, "rescale_factor": 0.00392157},
            "half",
            "as pre",
        ),
        (NULLS, {"do_normalize": None}, "half", "usual for Hugging Face ViT files, because no"),
    ],
)
def test_where_the_normalisation_was_found_is_said(
    tmp_path, config, preprocessor, normalize, source
):
    loaded = pretrained.load(folder(tmp_path, config, preprocessor), SIZE)
    assert loaded.model.normalize == normalize
    assert f"images normalised as {normalize} (" in loaded.note and source in loaded.note


def test_a_lone_file_says_which_normalisation_was_taken(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(IMAGENET))
    lone = write(tmp_path / "vit.safetensors", timm(tree()))
    assert "normalised as half (usual for timm files, because" in pretrained.load(lone, SIZE).note
    scaled = write(tmp_path / "vit.npz", timm(tree(SCALED), scaled=True))
    note = pretrained.load(scaled, SIZE).note
    assert "normalised as imagenet (usual for timm files with LayerScale, because" in note
    # The standard name tells that config.json belongs to it.
    named = write(tmp_path / "model.safetensors", timm(tree()))
    assert pretrained.load(named, SIZE).model.normalize == "imagenet"


@pytest.mark.parametrize(
    ("config", "preprocessor", "message"),
    [
        ({"pretrained_cfg": [1]}, None, "config.json has pretrained_cfg=.1., needed a table"),
        ({"mean": "red", "std": [1]}, None, "config.json has mean='red', needed a list of three"),
        ({"mean": [1, 2], "std": [1]}, None, "config.json has mean=.1, 2., needed a list of three"),
        ({"mean": [True] * 3, "std": [1]}, None, "needed a list of three numbers"),
        ({"mean": [10**400] * 3, "std": [1]}, None, "mean .inf, inf, inf. and std"),
        ({"mean": [0.5] * 3}, None, "config.json has only one of mean and std; set model.normal"),
        ({"std": [0.5] * 3}, None, "config.json has only one of mean and std; set model.normalize"),
        (None, {"do_normalize": "no"}, "has do_normalize='no', needed true or false"),
        (None, {"do_rescale": False}, "has do_rescale=false, and only images scaled to 0 to 1"),
        (None, {"rescale_factor": 1.0}, "has rescale_factor=1.0, and only images scaled to 0"),
        (None, {"rescale_factor": 10**400}, "has rescale_factor=1000.*, and only images scaled"),
        (None, {"rescale_factor": "1/255"}, "has rescale_factor='1/255', needed a number"),
        ({"layer_norm_eps": "x"}, None, "config.json has layer_norm_eps='x', needed a number"),
        ({"layer_norm_eps": float("inf")}, None, "has layer_norm_eps=inf, needed a number above 0"),
        ({"layer_norm_eps": 10**400}, None, "has layer_norm_eps=1000.*, needed a number above 0"),
        ({"layer_norm_eps": {}}, None, "config.json has layer_norm_eps={}, needed a number"),
        ({"num_attention_heads": [4]}, None, "were trained with .4.; choose their variant"),
    ],
)
def test_entries_of_another_type_are_named(tmp_path, config, preprocessor, message):
    with pytest.raises(ValueError, match=message) as error:
        pretrained.load(folder(tmp_path, config, preprocessor), SIZE)
    assert "\n" not in str(error.value)
