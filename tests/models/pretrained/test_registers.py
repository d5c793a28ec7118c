"""DINOv2 with registers: a naive transformer that reads the public names, and every layout."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image
from weight_files import (
    HEADS,
    PLAIN,
    REGISTERS,
    SCALED,
    SIZE,
    WIDTH,
    flat_of,
    hugging_face,
    meta,
    timm,
    tree,
    write,
)

from flcl import settings
from flcl.models import vit
from flcl.models.pretrained import load as pretrained


def values(model=REGISTERS):
    """Parameters of the size of trained ones; scales and gammas are around one."""
    draw = np.random.default_rng(3).normal
    return {
        name: (name.endswith(("scale", "gamma")) + draw(0, 0.1, value.shape)).astype(np.float32)
        for name, value in tree(model).items()
    }


def norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / spread * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def attention(x, tensors, name):
    """One head and one query after the other."""
    qkv = linear(x, tensors, f"{name}.qkv").reshape(len(x), 3, HEADS, -1)
    out = np.zeros((len(x), HEADS, WIDTH // HEADS))
    for head in range(HEADS):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        for token in range(len(x)):
            scores = k @ q[token] / np.sqrt(WIDTH // HEADS)
            weights = np.exp(scores - scores.max())
            out[token, head] = weights / weights.sum() @ v
    return linear(out.reshape(len(x), -1), tensors, f"{name}.proj")


def reference(tensors, image):
    """Class token of one image by the code of facebookresearch/dinov2, in float64 and in loops."""
    tensors = {name: value.astype(np.float64) for name, value in tensors.items()}
    side, patches = len(image) // 4, []
    kernel = tensors["patch_embed.proj.weight"]
    for i in range(side):
        for j in range(side):
            block = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            patches.append(np.einsum("oiyx,yxi->o", kernel, block))
    patches = np.stack(patches) + tensors["patch_embed.proj.bias"]
    position = tensors["pos_embed"][0]
    grid = np.moveaxis(position[1:].reshape(4, 4, -1), -1, 0).astype(np.float32)
    grid = [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in grid]
    grid = np.stack([np.asarray(p) for p in grid], -1).reshape(side**2, -1)
    x = np.concatenate([tensors["cls_token"][0] + position[:1], patches + grid])
    # The registers come after the class token, and only after the positions were added.
    x = np.concatenate([x[:1], tensors["register_tokens"][0], x[1:]])
    for index in range(6):
        name = f"blocks.{index}"
        y = attention(norm(x, tensors, f"{name}.norm1"), tensors, f"{name}.attn")
        x = x + y * tensors[f"{name}.ls1.gamma"]
        y = linear(norm(x, tensors, f"{name}.norm2"), tensors, f"{name}.mlp.fc1")
        y = y * (1 + scipy.special.erf(y / np.sqrt(2))) / 2
        y = linear(y, tensors, f"{name}.mlp.fc2")
        x = x + y * tensors[f"{name}.ls2.gamma"]
    return norm(x, tensors, "norm")[0]


@pytest.mark.parametrize("size", [SIZE, 24])
def test_features_are_those_of_a_naive_transformer(tmp_path, size):
    tensors = meta(values())
    write(tmp_path / "w.safetensors", tensors)
    loaded = pretrained.load(settings.ViT(weights=str(tmp_path / "w.safetensors")), size)
    assert (loaded.layout, loaded.model.registers) == ("DINOv2", 4)
    image = np.random.default_rng(size).normal(size=(size, size, 3)).astype(np.float32)
    forward = jax.jit(vit.VisionTransformer(loaded.model, size).apply)
    got = forward({"params": loaded.params}, image[None])[0]
    wanted = reference(tensors, image)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)
    tensors["register_tokens"] = -3 * tensors["register_tokens"]
    assert np.abs(reference(tensors, image) - wanted).max() > 0.01


@pytest.mark.parametrize("count", [1, 4, 7])
def test_any_number_of_registers_in_every_layout(tmp_path, count):
    flat = values(dataclasses.replace(SCALED, registers=count))
    for name, tensors in (
        ("meta", meta(flat)),
        ("face", hugging_face(flat, "dinov2")),
        ("timm", timm(flat, scaled=True)),
    ):
        write(tmp_path / f"{name}.safetensors", tensors)
        model = settings.ViT(weights=str(tmp_path / f"{name}.safetensors"))
        loaded = pretrained.load(model, SIZE)
        assert loaded.model.registers == count and f"{count} register tokens" in loaded.note
        np.testing.assert_array_equal(loaded.params["registers"], flat["registers"])


def test_the_conversion_of_timm_gives_the_same_tokens(tmp_path):
    """timm adds the position of the class token to that token, and keeps those of patches alone."""
    tensors = timm(values(), scaled=True)
    position = tensors["pos_embed"]
    tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
    tensors["pos_embed"] = np.ascontiguousarray(position[:, 1:])
    model = write(tmp_path / "w.safetensors", tensors)
    got = flat_of(pretrained.load(model, SIZE))
    wanted = values()
    np.testing.assert_array_equal(
        got["class_token"] + got["position"][0], wanted["class_token"] + wanted["position"][0]
    )
    np.testing.assert_array_equal(got["position"][1:], wanted["position"][1:])


def test_registers_of_random_weights():
    shapes = vit.abstract_parameters(dataclasses.replace(PLAIN, registers=3), SIZE)
    assert shapes["registers"].shape == (3, WIDTH)
    assert "registers" not in vit.abstract_parameters(PLAIN, SIZE)


def test_another_number_of_registers_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    model = dataclasses.replace(write(path, meta(values())), registers=2)
    message = r"register_tokens is \[1, 4, 64\], needed \[1, 2, 64\].*set model.registers=4"
    with pytest.raises(ValueError, match=message):
        pretrained.load(model, SIZE)
    model = dataclasses.replace(write(path, meta(values(SCALED))), registers=2)
    message = "1 missing .register_tokens.*has 0 register tokens: set model.registers=0"
    with pytest.raises(ValueError, match=message):
        pretrained.load(model, SIZE)
