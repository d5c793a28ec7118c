"""PEFT folders: their products are ours, their names are those of the models in PyTorch."""

import functools
import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
import weight_files
from weight_files import DEPTH, HEADS, PLAIN, REGISTERS, SCALED, SIZE, WIDTH

from flcl.models import vit
from flcl.models.pretrained import load, peft

QV = ("q", "v")
EVERY = ("q", "k", "v", "proj", "fc1", "fc2")
R = 3
MODELS = {"vit_4": PLAIN, "dinov2_4": SCALED, "timm": PLAIN, "dinov2_hub": REGISTERS}
MODELS |= {"vit": PLAIN, "dinov2": SCALED}


def adapters(model=PLAIN, sites=QV, blocks=range(DEPTH), seed=0, scale=0.2):
    """Random updates of every map; the second column of each is not used."""
    rng, made = np.random.default_rng(seed), {}
    for block, shapes in vit.site_shapes(model, sites, tuple(blocks)).items():
        made[block] = {}
        for site, (inputs, outputs) in shapes.items():
            sizes = {"a": (inputs, R), "core": (R, R), "b": (outputs, R)}
            entry = {n: scale * rng.normal(size=s).astype(np.float32) for n, s in sizes.items()}
            entry["a"][:, 1] = 0
            made[block][site] = entry
    return made


def features(flat, given=None, model=PLAIN):
    """Those of our transformer for four images."""
    images = np.random.default_rng(1).normal(size=(4, SIZE, SIZE, 3)).astype(np.float32)
    tree = {}
    for name, value in flat.items():
        *groups, leaf = name.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    variables = {"params": tree} | ({"adapter": given} if given else {})
    return np.asarray(compiled(model)(variables, images)), images


@functools.cache
def compiled(model):
    return jax.jit(vit.VisionTransformer(model, SIZE).apply)


def parameters(model):
    """Random parameters whose maps keep the size of what they read: rounding stays small."""
    flat = weight_files.tree(model)
    kernels = [name for name in flat if name.endswith("kernel")]
    return flat | {name: flat[name] / np.prod(flat[name].shape[:-1]) ** 0.5 for name in kernels}


def folder(given, name, **others):
    """The config and the arrays of a PEFT folder."""
    content = peft.folder(given, peft.model_of(None, name, "x"), **others)
    assert set(content) == {"adapter_config.json", "adapter_model.safetensors"}
    return json.loads(content[peft.CONFIG]), safetensors.numpy.load(content[peft.WEIGHTS])


def merged(tensors: dict, config: dict, arrays: dict, prefix="base_model.model.") -> dict:
    """The weights of a model in PyTorch with lora_B lora_A alpha / r added, as PEFT adds it."""
    tensors, left = dict(tensors), dict(arrays)
    for name in [n for n in arrays if n.endswith(".lora_A.weight")]:
        module = name.removeprefix(prefix).removesuffix(".lora_A.weight")
        a, b = left.pop(name), left.pop(f"{prefix}{module}.lora_B.weight")
        assert a.shape[0] == b.shape[1] == config["r"]
        update = b.astype(np.float64) @ a * config["lora_alpha"] / config["r"]
        tensors[f"{module}.weight"] = np.float32(tensors[f"{module}.weight"] + update)
        assert any(module == t or module.endswith(f".{t}") for t in config["target_modules"])
    assert not left
    return tensors


def written(name, flat):
    """The weights of a model in PyTorch that hold our parameters `flat`."""
    if name.startswith(("vit", "dinov2")) and name != "dinov2_hub":
        return weight_files.hugging_face(flat, name.removesuffix("_4"))
    return weight_files.timm(flat) if name == "timm" else weight_files.meta(flat)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("vit_4", QV),
        ("vit_4", EVERY),
        ("dinov2_4", EVERY),
        ("timm", QV),
        ("timm", EVERY),
        ("dinov2_hub", ("k", "fc2")),
    ],
)
def test_the_model_with_the_folder_added_has_our_features(name, sites, tmp_path):
    model, given = MODELS[name], adapters(MODELS[name], sites, (0, 2, 5))
    flat = parameters(model)
    tensors = merged(written(name, flat), *folder(given, name))
    # The reader of public weights turns them into ours again.
    path = tmp_path / "w.safetensors"
    changed = load.load(weight_files.write(path, tensors), SIZE)
    ours, _ = features(flat, given, model)
    theirs, _ = features(weight_files.flat_of(changed), None, model)
    plain, _ = features(flat, None, model)
    assert np.abs(ours - plain).max() > 0.05
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_rank_is_that_of_the_map_without_unused_columns():
    config, arrays = folder(adapters(), "vit_4")
    assert config["r"] == config["lora_alpha"] == R - 1 and config["peft_type"] == "LORA"
    assert len(arrays) == 2 * 2 * DEPTH
    one = "base_model.model.encoder.layer.5.attention.attention.value"
    assert arrays[f"{one}.lora_A.weight"].shape == (R - 1, WIDTH)
    assert arrays[f"{one}.lora_B.weight"].shape == (WIDTH, R - 1)
    # One module for queries, keys and values: the ranks add up.
    config, arrays = folder(adapters(), "timm")
    assert config["r"] == 2 * (R - 1) and len(arrays) == 2 * DEPTH
    b = arrays["base_model.model.blocks.0.attn.qkv.lora_B.weight"]
    assert b.shape == (3 * WIDTH, 2 * (R - 1)) and not b[WIDTH : 2 * WIDTH].any()


def test_an_update_of_zero_is_a_folder_too():
    config, arrays = folder(adapters(scale=0.0), "vit_4")
    assert config["r"] == 1 and not any(value.any() for value in arrays.values())


def test_a_prefix_stands_before_every_name():
    _, arrays = folder(adapters(), "vit_4", prefix="vit.")
    assert all(re.match(r"base_model\.model\.vit\.encoder\.layer\.\d", name) for name in arrays)


@pytest.mark.parametrize(
    ("layout", "asked", "why"),
    [
        (
            "AugReg",
            None,
            "have the layout AugReg, which names no modules of PyTorch; .*: vit, vit_4",
        ),
        (None, None, "are of no known layout"),
        (
            "timm",
            "bert",
            "model='bert': accepted are vit, vit_4, dinov2, dinov2_4, timm, dinov2_hub",
        ),
        ("timm", "dinov", "Did you mean 'dinov2'?"),
    ],
)
def test_weights_that_are_of_no_model_in_pytorch(layout, asked, why):
    with pytest.raises(ValueError, match=why):
        peft.model_of(layout, asked, "x.npz")


def test_a_layout_that_pytorch_has_is_taken_as_it_is():
    for layout in ("Hugging Face ViT", "Hugging Face Dinov2", "timm", "DINOv2"):
        assert peft.model_of(layout, None, "x").layout == layout
    assert peft.model_of("AugReg", "timm", "x").layout == "timm"


def test_modules_have_the_names_of_newer_and_of_older_versions():
    given = adapters(sites=EVERY, blocks=(3,))
    named = {
        name: set(peft.modules(given, peft.MODELS[name])) for name in ("vit", "vit_4", "dinov2")
    }
    older = {f"attention.attention.{name}" for name in ("query", "key", "value")}
    older |= {"attention.output.dense", "intermediate.dense", "output.dense"}
    assert named["vit_4"] == {f"encoder.layer.3.{name}" for name in older}
    newer = {f"attention.{name}_proj" for name in "qkvo"} | {"mlp.fc1", "mlp.fc2"}
    assert named["vit"] == {f"layers.3.{name}" for name in newer}
    assert named["dinov2"] == {f"encoder.layer.3.{name}" for name in newer}


def in_pytorch(name, flat):
    """The model of the library with the parameters `flat`, and its class tokens."""
    torch = pytest.importorskip("torch")
    tensors = {k: torch.from_numpy(v.copy()) for k, v in written(name, flat).items()}
    if name == "timm":
        timm = pytest.importorskip("timm")
        sizes = {"img_size": SIZE, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH}
        model = timm.models.VisionTransformer(**sizes, num_heads=HEADS, num_classes=0)
        model.load_state_dict(tensors)
        return model.eval(), lambda m, x: m(x)
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": SIZE, "patch_size": 4, "hidden_size": WIDTH, "num_hidden_layers": DEPTH}
    sizes |= {"num_attention_heads": HEADS, "layer_norm_eps": PLAIN.layer_norm_eps}
    if name == "vit":
        config, kind = transformers.ViTConfig(**sizes, intermediate_size=4 * WIDTH), "ViTModel"
    else:
        config, kind = transformers.Dinov2Config(**sizes), "Dinov2Model"
    extra = {"add_pooling_layer": False} if name == "vit" else {}
    model = getattr(transformers, kind).from_pretrained(
        None, config=config, state_dict=tensors, **extra
    )
    return model.eval(), lambda m, x: m(x).last_hidden_state[:, 0]


@pytest.mark.parametrize("name", ["vit", "dinov2", "timm"])
def test_the_library_itself_loads_the_folder(name, tmp_path):
    library = pytest.importorskip("peft")
    import torch

    model, sites = MODELS[name], EVERY if name != "timm" else QV
    flat, given = parameters(model), adapters(model, sites, (0, 2, 5))
    for file, content in peft.folder(given, peft.model_of(None, name, "x")).items():
        (tmp_path / file).write_bytes(content)
    ours, images = features(flat, given, model)
    network, class_token = in_pytorch(name, flat)
    adapted = library.PeftModel.from_pretrained(network, tmp_path)
    with torch.no_grad():
        theirs = class_token(adapted, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-5)
