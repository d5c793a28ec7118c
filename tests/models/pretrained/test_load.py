"""Public layouts in, our tree out: parity with public implementations, and every refusal."""

import dataclasses
import functools
import hashlib
import re
import zlib
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from weight_files import (
    PLAIN,
    REGISTERS,
    SCALED,
    SIZE,
    augreg,
    big_vision,
    flat_of,
    hugging_face,
    meta,
    timm,
    tree,
    write,
)

from flcl import settings
from flcl.data import sources
from flcl.models import vit
from flcl.models.pretrained import load as pretrained

NEWER = "dinov2_with_registers."
REFERENCE = np.load(Path(__file__).parents[1] / "vit_reference.npz")


EXTRAS = {
    "vit.": {"classifier.weight": (9, 64), "classifier.bias": (9,)},
    "pooler": {"pooler.dense.weight": (64, 64), "pooler.dense.bias": (64,)},
    "mask": {"embeddings.mask_token": (1, 64)},
    "timm": {"head.weight": (9, 64), "head.bias": (9,)},
    "big_vision": {"params/head/kernel": (64, 9), "params/head/bias": (9,)},
    "augreg": {"head/kernel": (64, 9), "head/bias": (9,), "pre_logits/kernel": (64, 64)},
}


@pytest.mark.parametrize(
    ("model", "export", "extra", "ending", "layout", "normalize"),
    [
        (PLAIN, augreg, "augreg", ".npz", "AugReg", "half"),
        (PLAIN, big_vision, "big_vision", ".npz", "big_vision", "half"),
        (PLAIN, functools.partial(hugging_face, kind="vit"), "pooler", ".safetensors",
         "Hugging Face ViT", "half"),
        (PLAIN, functools.partial(hugging_face, kind="vit", prefix="vit."), "vit.", ".safetensors",
         "Hugging Face ViT", "half"),
        (SCALED, functools.partial(hugging_face, kind="dinov2"), "mask", ".safetensors",
         "Hugging Face Dinov2", "imagenet"),
        (PLAIN, timm, "timm", ".safetensors", "timm", "half"),
        (SCALED, functools.partial(timm, scaled=True), "timm", ".safetensors", "timm", "imagenet"),
        (SCALED, meta, "", ".safetensors", "DINOv2", "imagenet"),
        (REGISTERS, meta, "", ".safetensors", "DINOv2", "imagenet"),
        (REGISTERS, functools.partial(timm, scaled=True), "timm", ".safetensors", "timm",
         "imagenet"),
        (REGISTERS, functools.partial(hugging_face, kind="dinov2"), "mask", ".safetensors",
         "Hugging Face Dinov2", "imagenet"),
        (REGISTERS, functools.partial(hugging_face, kind="dinov2", prefix=NEWER), "",
         ".safetensors", "Hugging Face Dinov2", "imagenet"),
        (SCALED, dict, "", ".safetensors", "flcl", "half"),
        (REGISTERS, dict, "", ".safetensors", "flcl", "half"),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_tree(
    tmp_path, model, export, extra, ending, layout, normalize
):
    wanted = tree(model)
    if layout == "big_vision":
        wanted["position"][0] = 0  # it adds nothing to the class token
    ignored = EXTRAS.get(extra, {})
    tensors = export(wanted) | {name: np.ones(shape, "f4") for name, shape in ignored.items()}
    path = tmp_path / f"weights{ending}"
    write(path, tensors)
    # Variant, LayerScale and registers are those of the file.
    found = pretrained.load(settings.ViT(weights=str(path)), SIZE)
    complete = dataclasses.replace(model, layer_scale=bool(model.layer_scale))
    sizes = ("variant", "layer_scale", "registers")
    assert all(getattr(found.model, key) == getattr(complete, key) for key in sizes)
    assert found.note.startswith(f"weights {path}: {layout} Nano/4")
    abstract = vit.abstract_parameters(model, SIZE)
    assert jax.tree.structure(found.params) == jax.tree.structure(abstract)
    got = flat_of(found)
    for name, value in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert (found.layout, found.model.normalize) == (layout, normalize)
    mask = ["mask_token"] if layout == "DINOv2" else []
    assert found.ignored == tuple(sorted([*ignored, *mask]))
    assert found.model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


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


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    wanted = {name: value.astype(dtype) for name, value in tree().items()}
    got = flat_of(pretrained.load(write(tmp_path / "w.safetensors", wanted), SIZE))
    for name, value in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value.astype(np.float32))


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
            lambda t: t.update({"norm.bias": np.full(64, -1e39)}),
            ["norm.bias holds 1e+39, more than float32 can hold (3.4e+38)"],
        ),
        (
            lambda t: [t.pop("norm.bias"), t.update({"pos_embed": np.ones((1, 13, 64))})],
            ["1 missing (norm.bias); 1 misshapen (pos_embed is [1, 13, 64], no square grid"],
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
        (
            timm(tree(SCALED), scaled=True),
            dataclasses.replace(PLAIN, layer_scale=False),
            "12 left over.*set model.layer_scale=True",
        ),
        (timm(tree()), SCALED, "12 missing.*set model.layer_scale=False"),
        (timm(tree()), dataclasses.replace(PLAIN, variant="Nano/8"), "set model.variant=Nano/4"),
        (timm(tree()), dataclasses.replace(PLAIN, variant="Ti/4"), "set model.variant=Nano/4"),
        (
            {k: v for k, v in timm(tree()).items() if "blocks.5" not in k},
            PLAIN,
            "12 missing.*holds width 64, depth 5, patch 4: no variant fits it",
        ),
    ],
)
def test_the_likely_cause_is_named(tmp_path, tensors, model, message):
    write(tmp_path / "w.safetensors", tensors)
    with pytest.raises(ValueError, match=message):
        pretrained.load(dataclasses.replace(model, weights=str(tmp_path / "w.safetensors")), SIZE)


def test_another_architecture(tmp_path):
    model = write(tmp_path / "w.safetensors", {"conv1.weight": np.ones((8, 3, 7, 7), "f4")})
    with pytest.raises(ValueError, match="1 tensors .conv1.weight.*known are AugReg, big_vision"):
        pretrained.load(model, SIZE)


def test_the_embedded_asset_tells_unseen_digits_apart():
    model = dataclasses.replace(PLAIN, weights="tiny")
    path = Path(pretrained.__file__).parents[1] / "assets" / "tiny_vit.safetensors"
    assert path.stat().st_size <= 1_000_000
    loaded = pretrained.load(model, SIZE)
    assert (loaded.layout, loaded.model.normalize, loaded.ignored) == ("flcl", "half", ())
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
