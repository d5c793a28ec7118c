"""Small weights files in the layouts of public models, made from a tree of ours."""

import dataclasses
import json

import flax.traverse_util
import numpy as np
import safetensors.numpy

from flcl import settings
from flcl.models import vit

WIDTH, HEADS, DEPTH, SIZE = 64, 4, 6, 16
PLAIN = settings.ViT(variant="Nano/4")
SCALED = dataclasses.replace(PLAIN, layer_scale=True)
REGISTERS = dataclasses.replace(SCALED, registers=4)


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
    if "registers" in flat:
        out["embeddings.register_tokens"] = flat["registers"][None]
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
    """Tensors of timm's VisionTransformer, with a position for the class token."""
    out = {
        "cls_token": flat["class_token"][None, None],
        "pos_embed": flat["position"][None],
        "patch_embed.proj.weight": np.einsum("yxio->oiyx", flat["patches/kernel"]),
        "patch_embed.proj.bias": flat["patches/bias"],
    }
    if "registers" in flat:
        out["reg_token"] = flat["registers"][None]
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


def meta(flat):
    """Tensors of facebookresearch/dinov2: the names of timm, and those of two more tokens."""
    out = timm(flat, scaled=True)
    if "registers" in flat:
        out["register_tokens"] = out.pop("reg_token")
    return out | {"mask_token": np.zeros((1, WIDTH), np.float32)}


def big_vision(flat):
    """Tensors of big_vision, with the prefix of its files; the class token has no position."""
    out = augreg(flat)
    out["pos_embedding"] = out.pop("Transformer/posembed_input/pos_embedding")[:, 1:]
    renamed = {"Attention_1": "Attention_0", "LayerNorm_2": "LayerNorm_1", "Block_3": "Block_0"}
    named = {}
    for name, value in out.items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        named[f"params/{name}"] = value
    return named


def augreg(flat):
    """Arrays of google-research/vision_transformer."""
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


def folder(path, config=None, preprocessor=None):
    """A folder as Hugging Face's `save_pretrained` writes it."""
    write(path / "model.safetensors", hugging_face(tree(), "vit"))
    for name, value in (("config", config), ("preprocessor_config", preprocessor)):
        if value is not None:
            (path / f"{name}.json").write_text(json.dumps(value))
    return dataclasses.replace(PLAIN, weights=str(path))
