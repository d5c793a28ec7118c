"""Public layouts in, our tree out: parity with public implementations, and every refusal."""

import dataclasses
import functools
import hashlib
import json
import re
import sys
import types
import zlib
from pathlib import Path

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flcl import settings
from flcl.data import sources
from flcl.models import vit
from flcl.models.pretrained import load as pretrained

WIDTH, HEADS, DEPTH, SIZE = 64, 4, 6, 16
PLAIN = settings.ViT(variant="Nano/4")
SCALED = dataclasses.replace(PLAIN, layer_scale=True)
REFERENCE = np.load(Path(__file__).parents[1] / "vit_reference.npz")


def tree(model=PLAIN, size=SIZE, seed=0):
    """Random parameters of ours, as flat names."""
    rng = np.random.default_rng(seed)
    flat = flax.traverse_util.flatten_dict(vit.abstract_parameters(model, size), sep="/")
    return {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in flat.items()}


def torch_linear(out, ours, theirs, flat):
    out[f"{theirs}.weight"] = flat[f"{ours}/kernel"].T
    out[f"{theirs}.bias"] = flat[f"{ours}/bias"]


def torch_norm(out, ours, theirs, flat):
    out[f"{theirs}.weight"] = flat[f"{ours}/scale"]
    out[f"{theirs}.bias"] = flat[f"{ours}/bias"]


def hugging_face(flat, kind, prefix=""):
    """Tensors of ViTModel ("vit") or Dinov2Model ("dinov2") that hold the parameters `flat`."""
    out = {
        "embeddings.cls_token": flat["class_token"][None, None],
        "embeddings.position_embeddings": flat["position"][None],
        "embeddings.patch_embeddings.projection.weight": np.einsum(
            "yxio->oiyx", flat["patches/kernel"]
        ),
        "embeddings.patch_embeddings.projection.bias": flat["patches/bias"],
    }
    torch_norm(out, "norm", "layernorm", flat)
    names = {
        "vit": ("layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"),
        "dinov2": ("norm1", "norm2", "mlp.fc1", "mlp.fc2"),
    }[kind]
    for i in range(DEPTH):
        ours, theirs = f"block_{i:02d}", f"encoder.layer.{i}"
        torch_norm(out, f"{ours}/norm1", f"{theirs}.{names[0]}", flat)
        torch_norm(out, f"{ours}/norm2", f"{theirs}.{names[1]}", flat)
        torch_linear(out, f"{ours}/fc1", f"{theirs}.{names[2]}", flat)
        torch_linear(out, f"{ours}/fc2", f"{theirs}.{names[3]}", flat)
        for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
            torch_linear(out, f"{ours}/{short}", f"{theirs}.attention.attention.{long}", flat)
        torch_linear(out, f"{ours}/proj", f"{theirs}.attention.output.dense", flat)
        if kind == "dinov2":
            out[f"{theirs}.layer_scale1.lambda1"] = flat[f"{ours}/scale1/gamma"]
            out[f"{theirs}.layer_scale2.lambda1"] = flat[f"{ours}/scale2/gamma"]
    return {prefix + name: np.ascontiguousarray(value) for name, value in out.items()}


def timm(flat, scaled=False):
    out = {
        "cls_token": flat["class_token"][None, None],
        "pos_embed": flat["position"][None],
        "patch_embed.proj.weight": np.einsum("yxio->oiyx", flat["patches/kernel"]),
        "patch_embed.proj.bias": flat["patches/bias"],
    }
    torch_norm(out, "norm", "norm", flat)
    for i in range(DEPTH):
        ours, theirs = f"block_{i:02d}", f"blocks.{i}"
        torch_norm(out, f"{ours}/norm1", f"{theirs}.norm1", flat)
        torch_norm(out, f"{ours}/norm2", f"{theirs}.norm2", flat)
        for name, long in (("proj", "attn.proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2")):
            torch_linear(out, f"{ours}/{name}", f"{theirs}.{long}", flat)
        maps = [(flat[f"{ours}/{c}/kernel"].T, flat[f"{ours}/{c}/bias"]) for c in "qkv"]
        out[f"{theirs}.attn.qkv.weight"] = np.concatenate([kernel for kernel, _ in maps])
        out[f"{theirs}.attn.qkv.bias"] = np.concatenate([bias for _, bias in maps])
        if scaled:
            out[f"{theirs}.ls1.gamma"] = flat[f"{ours}/scale1/gamma"]
            out[f"{theirs}.ls2.gamma"] = flat[f"{ours}/scale2/gamma"]
    return {name: np.ascontiguousarray(value) for name, value in out.items()}


def augreg(flat):
    out = {
        "cls": flat["class_token"][None, None],
        "Transformer/posembed_input/pos_embedding": flat["position"][None],
        "embedding/kernel": flat["patches/kernel"],
        "embedding/bias": flat["patches/bias"],
        "Transformer/encoder_norm/scale": flat["norm/scale"],
        "Transformer/encoder_norm/bias": flat["norm/bias"],
    }
    per = WIDTH // HEADS
    for i in range(DEPTH):
        ours, theirs = f"block_{i:02d}/", f"Transformer/encoderblock_{i}/"
        for name, long in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{theirs}{long}/scale"] = flat[f"{ours}{name}/scale"]
            out[f"{theirs}{long}/bias"] = flat[f"{ours}{name}/bias"]
        for name, long in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            out[f"{theirs}MlpBlock_3/{long}/kernel"] = flat[f"{ours}{name}/kernel"]
            out[f"{theirs}MlpBlock_3/{long}/bias"] = flat[f"{ours}{name}/bias"]
        for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
            kernel, bias = np.empty((WIDTH, HEADS, per), "f4"), np.empty((HEADS, per), "f4")
            for head in range(HEADS):
                part = slice(head * per, (head + 1) * per)
                kernel[:, head] = flat[f"{ours}{name}/kernel"][:, part]
                bias[head] = flat[f"{ours}{name}/bias"][part]
            out[f"{theirs}MultiHeadDotProductAttention_1/{long}/kernel"] = kernel
            out[f"{theirs}MultiHeadDotProductAttention_1/{long}/bias"] = bias
        kernel = np.stack(np.split(flat[f"{ours}proj/kernel"], HEADS))
        out[f"{theirs}MultiHeadDotProductAttention_1/out/kernel"] = kernel
        out[f"{theirs}MultiHeadDotProductAttention_1/out/bias"] = flat[f"{ours}proj/bias"]
    return out


def write(path, tensors, metadata=None):
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        safetensors.numpy.save_file(tensors, path, metadata=metadata)
    return dataclasses.replace(PLAIN, weights=str(path))


def flat_of(loaded):
    return flax.traverse_util.flatten_dict(loaded.params, sep="/")


EXTRAS = {
    "vit.": {"classifier.weight": (9, 64), "classifier.bias": (9,)},
    "pooler": {"pooler.dense.weight": (64, 64), "pooler.dense.bias": (64,)},
    "mask": {"embeddings.mask_token": (1, 64)},
    "timm": {"head.weight": (9, 64), "head.bias": (9,)},
    "augreg": {"head/kernel": (64, 9), "head/bias": (9,), "pre_logits/kernel": (64, 64)},
}


@pytest.mark.parametrize(
    ("model", "export", "extra", "ending", "layout", "normalize"),
    [
        (PLAIN, augreg, "augreg", ".npz", "AugReg", "half"),
        (PLAIN, functools.partial(hugging_face, kind="vit"), "pooler", ".safetensors",
         "Hugging Face ViT", "half"),
        (PLAIN, functools.partial(hugging_face, kind="vit", prefix="vit."), "vit.", ".safetensors",
         "Hugging Face ViT", "half"),
        (SCALED, functools.partial(hugging_face, kind="dinov2"), "mask", ".safetensors",
         "Hugging Face Dinov2", "imagenet"),
        (PLAIN, timm, "timm", ".safetensors", "timm", "half"),
        (SCALED, functools.partial(timm, scaled=True), "timm", ".safetensors", "timm", "imagenet"),
        (SCALED, dict, "", ".safetensors", "flcl", "half"),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_tree(
    tmp_path, model, export, extra, ending, layout, normalize
):
    wanted = tree(model)
    ignored = EXTRAS.get(extra, {})
    tensors = export(wanted) | {name: np.ones(shape, "f4") for name, shape in ignored.items()}
    path = tmp_path / f"weights{ending}"
    write(path, tensors)
    found = pretrained.load(dataclasses.replace(model, weights=str(path)), SIZE)
    abstract = vit.abstract_parameters(model, SIZE)
    assert jax.tree.structure(found.params) == jax.tree.structure(abstract)
    got = flat_of(found)
    for name, value in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert (found.layout, found.normalize) == (layout, normalize)
    assert found.ignored == tuple(sorted(ignored))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def by_name(name, shape):
    """The weight of that name in the models of `vit_reference.npz`."""
    values = np.random.RandomState(zlib.crc32(name.encode())).normal(0, 0.1, shape)
    one = re.search(r"(norm|norm1|norm2|layernorm_before|layernorm_after)\.weight$|lambda1$", name)
    return (values + bool(one)).astype(np.float32)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@pytest.mark.parametrize("size", [32, 20, 48])
def test_features_equal_those_of_the_public_models(tmp_path, kind, size):
    """`vit_reference.npz`: class tokens of ViTModel and Dinov2Model, transformers 5.23, torch 2.13.

    They were built for 32 pixels; at 20 and 48 they resize their own grid of positions.
    """
    model = {
        "vit": dataclasses.replace(PLAIN, layer_norm_eps=1e-12),
        "dinov2": SCALED,
    }[kind]
    shapes = hugging_face(tree(model, 32), kind)
    path = tmp_path / "model.safetensors"
    write(path, {name: by_name(name, value.shape) for name, value in shapes.items()})
    loaded = pretrained.load(dataclasses.replace(model, weights=str(path)), size)
    images = np.random.RandomState(size).normal(0, 1, (2, size, size, 3)).astype(np.float32)
    got = jax.jit(vit.VisionTransformer(model, size).apply)({"params": loaded.params}, images)
    np.testing.assert_allclose(got, REFERENCE[f"{kind}_{size}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [(37, 8), (5, 12), (8, 5), (14, 16)])
def test_positions_are_resized_as_torch_does(old, new):
    """Stored: interpolate(mode="bicubic", align_corners=False) of torch 2.13 on the same grid."""
    grid = np.random.RandomState(old).normal(0, 1, (old * old, 3)).astype(np.float32)
    token = np.full((1, 3), 7.0, np.float32)
    got = pretrained.resize_positions(np.concatenate([token, grid]), new)
    assert got.shape == (1 + new * new, 3) and got.dtype == np.float32
    np.testing.assert_array_equal(got[:1], token)
    wanted = REFERENCE[f"grid_{old}_{new}"].reshape(-1, 3)
    np.testing.assert_allclose(got[1:], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    wanted = {name: value.astype(dtype) for name, value in tree().items()}
    got = flat_of(pretrained.load(write(tmp_path / "w.safetensors", wanted), SIZE))
    for name, value in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value.astype(np.float32))


def folder(path, config=None, preprocessor=None):
    """A folder as Hugging Face's `save_pretrained` writes it."""
    write(path / "model.safetensors", hugging_face(tree(), "vit"))
    for name, value in (("config", config), ("preprocessor_config", preprocessor)):
        if value is not None:
            (path / f"{name}.json").write_text(json.dumps(value))
    return dataclasses.replace(PLAIN, weights=str(path))


def test_a_folder_tells_its_normalisation(tmp_path):
    model = folder(tmp_path, {"num_attention_heads": 4, "layer_norm_eps": 1e-6})
    assert pretrained.load(model, SIZE).normalize == "half"
    said = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder(tmp_path, preprocessor=said)
    assert pretrained.load(model, SIZE).normalize == "imagenet"
    folder(tmp_path, preprocessor={"do_normalize": False, **said})
    assert pretrained.load(model, SIZE).normalize == "unit"
    clip = {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}
    folder(tmp_path, preprocessor=clip)
    with pytest.raises(ValueError, match="mean .0.481, .*; known are half, imagenet, unit"):
        pretrained.load(model, SIZE)
    chosen = dataclasses.replace(model, normalize="imagenet")
    assert pretrained.load(chosen, SIZE).normalize == "imagenet"


def test_timm_configuration_tells_its_normalisation(tmp_path):
    write(tmp_path / "model.safetensors", timm(tree()))
    about = {"pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    model = dataclasses.replace(PLAIN, weights=str(tmp_path))
    assert pretrained.load(model, SIZE).normalize == "imagenet"


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


def broken(tensors, change):
    tensors = dict(tensors)
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("blocks.3.mlp.fc1.bias"), ["1 missing (blocks.3.mlp.fc1.bias)"]),
        (
            lambda t: [t.pop(f"blocks.{i}.norm1.bias") for i in range(5)],
            ["5 missing (blocks.0.norm1.bias, ", "and 2 more)"],
        ),
        (lambda t: t.update({"fc_norm.weight": np.ones(64)}), ["1 left over (fc_norm.weight)"]),
        (
            lambda t: t.update({"blocks.0.attn.qkv.weight": np.ones((64, 192))}),
            ["1 misshapen (blocks.0.attn.qkv.weight is [64, 192], needed [192, 64])"],
        ),
        (lambda t: t.update({"norm.bias": np.ones(64, int)}), ["norm.bias is int64, needed float"]),
        (lambda t: t.update({"norm.bias": np.full(64, np.nan)}), ["norm.bias holds NaN"]),
        (
            lambda t: t.update({"pos_embed": np.ones((1, 16, 64))}),
            ["pos_embed is [1, 16, 64], without a position for the class token"],
        ),
        (
            lambda t: t.update({"pos_embed": np.ones((1, 13, 64))}),
            ["pos_embed is [1, 13, 64], not one more than a square grid"],
        ),
        (
            lambda t: [t.pop("norm.bias"), t.update({"a": np.ones(1), "b": np.ones(1)})],
            ["1 missing (norm.bias); 2 left over (a, b). Is it the file of a plain"],
        ),
    ],
)
def test_one_error_lists_what_does_not_fit(tmp_path, change, words):
    model = write(tmp_path / "w.safetensors", broken(timm(tree()), change))
    with pytest.raises(ValueError) as error:
        pretrained.load(model, SIZE)
    said = str(error.value)
    assert "\n" not in said and "its timm tensors do not fit model.variant=Nano/4" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("tensors", "model", "message"),
    [
        (timm(tree(SCALED), scaled=True), PLAIN, "12 left over.*set model.layer_scale=True"),
        (timm(tree()), SCALED, "12 missing.*set model.layer_scale=False"),
        (timm(tree()), dataclasses.replace(PLAIN, variant="Nano/8"), "set model.variant=Nano/4"),
        (timm(tree()), dataclasses.replace(PLAIN, variant="Ti/4"), "set model.variant=Nano/4"),
        (
            {k: v for k, v in timm(tree()).items() if "blocks.5" not in k},
            PLAIN,
            "12 missing.*holds width 64, depth 5: no variant",
        ),
    ],
)
def test_the_likely_cause_is_named(tmp_path, tensors, model, message):
    write(tmp_path / "w.safetensors", tensors)
    with pytest.raises(ValueError, match=message):
        pretrained.load(dataclasses.replace(model, weights=str(tmp_path / "w.safetensors")), SIZE)


def test_another_architecture(tmp_path):
    model = write(tmp_path / "w.safetensors", {"conv1.weight": np.ones((8, 3, 7, 7), "f4")})
    with pytest.raises(ValueError, match="1 tensors .conv1.weight.*known are AugReg, Hugging Face"):
        pretrained.load(model, SIZE)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 1_000, 100_000])
def test_truncated_files(tmp_path, ending, kept):
    path = tmp_path / f"w{ending}"
    model = write(path, tree())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"w{ending} is truncated or no {ending} file") as error:
        pretrained.load(model, SIZE)
    assert "\n" not in str(error.value)


def test_hash_is_checked_before_the_file_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    model = write(path, tree())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert pretrained.load(dataclasses.replace(model, sha256=digest.upper()), SIZE).sha256 == digest
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=f"model.sha256={digest}: .* has SHA-256 {found}"):
        pretrained.load(dataclasses.replace(model, sha256=digest), SIZE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "no such file or folder; accepted are tiny, random"),
        ("w.pth", ".pth is not read; accepted"),
        ("bare", "a file without ending is not read"),
        ("empty", "the folder has no model.safetensors"),
        ("json", "config.json is not readable JSON"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, message):
    for file in ("w.pth", "bare"):
        (tmp_path / file).write_bytes(b"x")
    for inside in ("empty", "json"):
        (tmp_path / inside).mkdir()
    (tmp_path / "json" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=message):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(tmp_path / name)), SIZE)


def test_hub(tmp_path, monkeypatch):
    model = dataclasses.replace(PLAIN, weights="hub:someone/vit")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="needs huggingface_hub; `pip install"):
        pretrained.load(model, SIZE)
    folder(tmp_path, {"num_attention_heads": 4})
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    np.testing.assert_array_equal(
        pretrained.load(model, SIZE).params["class_token"], tree()["class_token"]
    )
    assert asked[0][0] == "someone/vit" and "config.json" in asked[0][1]

    def offline(name, allow_patterns):
        raise ConnectionError("no route\nto host")

    hub.snapshot_download = offline
    with pytest.raises(ValueError, match="cannot be had from the hub .no route.; check") as error:
        pretrained.load(model, SIZE)
    assert "\n" not in str(error.value)


def test_the_embedded_asset_tells_unseen_digits_apart():
    model = dataclasses.replace(PLAIN, weights="tiny")
    path = Path(pretrained.__file__).parents[1] / "assets" / "tiny_vit.safetensors"
    assert path.stat().st_size <= 1_000_000
    loaded = pretrained.load(model, SIZE)
    assert (loaded.layout, loaded.normalize, loaded.ignored) == ("flcl", "half", ())
    data = settings.Data(source="digits", image_size=SIZE, channels=3)
    source = sources.load_source(data)
    extract = jax.jit(vit.VisionTransformer(model, SIZE).apply)

    def of(split):
        images = np.asarray(split.images) / np.float32(127.5) - np.float32(1)
        return np.asarray(extract({"params": loaded.params}, images))

    train, test = of(source.train), of(source.test)
    means = np.stack([train[source.train.labels == c].mean(0) for c in range(10)])
    distance = ((test[:, None] - means[None]) ** 2).sum(2)
    assert (distance.argmin(1) == source.test.labels).mean() > 0.75


def test_the_embedded_asset_serves_other_sizes():
    model = dataclasses.replace(PLAIN, weights="tiny")
    at_16, at_24 = pretrained.load(model, 16).params, pretrained.load(model, 24).params
    assert at_24["position"].shape == (37, 64)
    np.testing.assert_array_equal(at_16["position"][0], at_24["position"][0])
    with pytest.raises(ValueError, match="misshapen.*set model.variant=Nano/4"):
        pretrained.load(dataclasses.replace(model, variant="Ti/4"), 16)
