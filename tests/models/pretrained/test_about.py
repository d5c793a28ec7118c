"""What the files beside the weights say about their training."""

import dataclasses
import json

import numpy as np
import pytest
from weight_files import PLAIN, SIZE, folder, timm, tree, write

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
