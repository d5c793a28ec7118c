"""The adapter of an opened classifier as a folder: which names it gets, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from flcl.runs.outside.adapter import export_adapter

ENTRY = {"a": np.eye(8, 2), "core": np.eye(2), "b": np.ones((8, 2))}


@pytest.fixture
def run(tmp_path):
    """`run(weights, layout)`: what the function reads of an opened run."""

    def make(weights, layout):
        (tmp_path / "results.json").write_text(json.dumps({"weights": {"layout": layout}}))
        method = SimpleNamespace(low_rank=lambda memory: {"block_07": {"q": ENTRY}})
        return SimpleNamespace(
            workdir=tmp_path,
            settings=SimpleNamespace(model=SimpleNamespace(weights=weights)),
            learned=(1, 2),
            _setup=SimpleNamespace(method=method),
            _memory=lambda last: None,
        )

    return make


@pytest.mark.parametrize(
    ("weights", "layout", "asked", "module", "base"),
    [
        ("hub:google/vit", "Hugging Face ViT", None, "layers.7.attention.q_proj", "google/vit"),
        ("b16.npz", "AugReg", "timm", "blocks.7.attn.qkv", None),
        ("random", None, "dinov2", "encoder.layer.7.attention.q_proj", None),
    ],
)
def test_the_names_are_those_of_the_weights_or_as_asked(
    run, tmp_path, weights, layout, asked, module, base
):
    out = export_adapter(run(weights, layout), tmp_path / "out", asked, "vit.", False)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base and config["r"] == 2
    assert config["target_modules"] == [f"vit.{module}"]
    arrays = safetensors.numpy.load_file(out / "adapter_model.safetensors")
    kinds = ("lora_A", "lora_B")
    assert set(arrays) == {f"base_model.model.vit.{module}.{kind}.weight" for kind in kinds}


@pytest.mark.parametrize(
    ("layout", "prefix", "why"),
    [
        ("AugReg", "", "name the model that has the same weights there: vit, vit_4"),
        ("timm", "vit", "prefix='vit': names with a dot after each are needed"),
        ("timm", "../x.", "prefix='../x.'"),
    ],
)
def test_what_has_no_names_in_pytorch(run, tmp_path, layout, prefix, why):
    with pytest.raises(ValueError, match=why):
        export_adapter(run("w.npz", layout), tmp_path / "out", None, prefix, False)
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_stay_unless_they_may_go(run, tmp_path):
    given, out = run("w", "timm"), tmp_path / "out"
    export_adapter(given, out, None, "", False)
    (out / "adapter_config.json").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        export_adapter(given, out, None, "", False)
    assert (out / "adapter_config.json").read_text() == "mine"
    export_adapter(given, out, None, "", True)
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"
