"""What is taken from a file: names without prefixes, the variant, and how positions are resized."""

import dataclasses

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
from flcl.models.pretrained import load as pretrained


def load(path, tensors, size=SIZE, **changes):
    write(path, tensors)
    return pretrained.load(settings.ViT(weights=str(path), **changes), size)


@pytest.mark.parametrize("export", [timm, lambda flat: hugging_face(flat, "vit")])
@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("module.", "'module.' removed"),
        ("model.", "'model.' removed"),
        ("backbone.", "'backbone.' removed"),
        ("_orig_mod.", "'_orig_mod.' removed"),
        ("module._orig_mod.", "'_orig_mod.' and 'module.' removed"),
        ("_orig_mod.model.backbone.", "'_orig_mod.' and 'model.backbone.' removed"),
        ("visual.trunk.", "'visual.trunk.' removed"),
    ],
)
def test_prefixes_are_removed_with_a_note(tmp_path, export, prefix, said):
    tensors = {prefix + name: value for name, value in export(tree()).items()}
    loaded = load(tmp_path / "w.safetensors", tensors)
    assert f"{said} from its names" in loaded.note
    got = flat_of(loaded)
    for name, value in tree().items():
        np.testing.assert_array_equal(got[name], value)


def test_usual_prefixes_need_no_note(tmp_path):
    for number, tensors in enumerate((hugging_face(tree(), "vit", "vit."), big_vision(tree()))):
        assert "removed" not in load(tmp_path / f"{number}.npz", tensors).note


def test_wrappers_inside_names_are_removed(tmp_path):
    tensors = {
        name.replace(".attn.", "._orig_mod.attn.").replace("norm.", "_fsdp_wrapped_module.norm.")
        if name != "norm.weight"
        else name: value
        for name, value in timm(tree()).items()
    }
    got = flat_of(load(tmp_path / "w.safetensors", tensors))
    np.testing.assert_array_equal(got["block_05/q/kernel"], tree()["block_05/q/kernel"])
    np.testing.assert_array_equal(got["norm/bias"], tree()["norm/bias"])


def test_tensors_beside_the_transformer_are_listed(tmp_path):
    tensors = {f"model.backbone.{name}": value for name, value in timm(tree()).items()}
    tensors |= {"model.head.weight": np.ones((2, 2), "f4"), "model.backbone.head.bias": np.ones(2)}
    loaded = load(tmp_path / "w.safetensors", tensors)
    assert loaded.ignored == ("model.backbone.head.bias", "model.head.weight")
    assert "1 tensors beside the transformer not used" in loaded.note


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (("student.", "teacher."), "holds 2 transformers, .* 'student.' and 'teacher.'; keep"),
        (("", "_orig_mod."), "the same tensors twice, with and without _orig_mod"),
    ],
)
def test_two_transformers_in_one_file_are_refused(tmp_path, prefixes, message):
    tensors = {p + name: value for p in prefixes for name, value in timm(tree()).items()}
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "w.safetensors", tensors)


def test_a_hierarchy_is_no_plain_transformer(tmp_path):
    tensors = {f"layers.0.{name}": value for name, value in timm(tree()).items()}
    with pytest.raises(ValueError, match="not those of a vision transformer in a known layout"):
        load(tmp_path / "w.safetensors", tensors)


@pytest.mark.parametrize("variant", ["Nano/2", "Nano/8"])
@pytest.mark.parametrize("export", [timm, augreg])
def test_the_variant_is_that_of_the_file(tmp_path, variant, export):
    """The side of a patch is smaller than its three colours in one of them."""
    tensors = export(tree(dataclasses.replace(PLAIN, variant=variant)))
    loaded = load(tmp_path / "w.npz", tensors)
    assert (loaded.model.variant, loaded.model.layer_scale) == (variant, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm.weight": np.ones(80, "f4")}, "width 80, depth 6, patch 4"),
        ({"blocks.40.attn.qkv.bias": np.ones(192, "f4")}, "width 64, depth 41, patch 4"),
        ({"patch_embed.proj.weight": np.ones((64, 3, 2, 4))}, "width 64, depth 6, patch of no sq"),
    ],
)
def test_sizes_that_no_variant_has(tmp_path, change, words):
    with pytest.raises(ValueError, match=f"{words}.*no variant has these.*Ti 192 and 12, S 384"):
        load(tmp_path / "w.npz", timm(tree()) | change)


def test_a_patch_that_does_not_divide_the_images(tmp_path):
    with pytest.raises(ValueError, match="data.image_size=18: must be a multiple of 4"):
        load(tmp_path / "w.npz", timm(tree()), size=18)


@pytest.mark.parametrize(
    ("model", "export", "resize"),
    [
        (PLAIN, augreg, "bilinear"),
        (PLAIN, big_vision, "bilinear"),
        (PLAIN, lambda flat: hugging_face(flat, "vit"), "bicubic"),
        (SCALED, lambda flat: hugging_face(flat, "dinov2"), "bicubic"),
        (REGISTERS, lambda flat: hugging_face(flat, "dinov2"), "bicubic_antialias"),
        (PLAIN, timm, "bicubic_antialias"),
        (REGISTERS, timm, "bicubic_antialias"),
        (SCALED, meta, "bicubic_offset"),
        (REGISTERS, meta, "bicubic_antialias"),
        (SCALED, dict, "bicubic"),
    ],
)
def test_each_family_has_its_way_to_resize_positions(tmp_path, model, export, resize):
    path, tensors = tmp_path / "w.npz", export(tree(model))
    same, larger = load(path, tensors), load(path, tensors, size=24)
    assert larger.model.position_resize == resize
    assert f"positions resized from 4x4 to 6x6 ({resize})" in larger.note
    # Nothing is resized: then the stored name is the same for all, also for older runs.
    assert same.model.position_resize == "bicubic" and "resized" not in same.note


def test_a_chosen_way_to_resize_is_used(tmp_path):
    tensors = timm(tree())
    ways = [
        load(tmp_path / "w.npz", tensors, size=24, position_resize=way).params["position"]
        for way in ("bicubic", "bilinear", "bicubic_antialias", "weights")
    ]
    np.testing.assert_array_equal(ways[2], ways[3])
    assert np.abs(ways[0] - ways[3]).max() > 0.01 and np.abs(ways[1] - ways[3]).max() > 0.01
