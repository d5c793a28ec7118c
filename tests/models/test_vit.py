"""Published sizes of the transformer, its adapters and prompt; what settings must not change."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.models import vit

PICO = settings.AdaptedViT(variant="Pico/4", layer_scale=True)
SIZE = 16
SITES = settings.SITES


def filled(shapes, seed=0):
    """Values for a tree of shapes, such that every parameter and every token matters."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        around = 1 if path[-1].key in ("scale", "gamma") else 0
        return rng.normal(around, 0.1, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


PARAMS = filled(vit.abstract_parameters(PICO, SIZE))
IMAGES = np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)


@functools.cache
def compiled(size=SIZE, **changes):
    return jax.jit(vit.VisionTransformer(dataclasses.replace(PICO, **changes), size).apply)


def features(variables, images=IMAGES, prompt=None, **changes):
    return compiled(**changes)(variables, images, prompt)


def adapters(blocks, sites=SITES, rank=3):
    shapes = vit.site_shapes(PICO, sites, blocks)
    abstract = {
        block: {
            site: {
                "a": jax.ShapeDtypeStruct((inside, rank), np.float32),
                "core": jax.ShapeDtypeStruct((rank, rank), np.float32),
                "b": jax.ShapeDtypeStruct((outside, rank), np.float32),
            }
            for site, (inside, outside) in entry.items()
        }
        for block, entry in shapes.items()
    }
    return filled(abstract, seed=2)


@pytest.mark.parametrize(
    ("variant", "size", "layer_scale", "wanted"),
    [
        ("B/16", 224, False, 85_798_656),
        # The public file of 22,056,576 also holds a mask token of 384.
        ("S/14", 518, True, 22_056_576 - 384),
        ("Ti/16", 224, False, 5_524_416),
        ("L/16", 224, False, 303_301_632),
    ],
)
def test_published_parameter_counts(variant, size, layer_scale, wanted):
    model = settings.ViT(variant=variant, layer_scale=layer_scale)
    assert vit.parameter_count(model, size) == wanted


def test_names_and_shapes_of_the_tree():
    shapes = jax.tree.map(lambda leaf: leaf.shape, vit.abstract_parameters(PICO, SIZE))
    assert sorted(shapes) == sorted(
        ["class_token", "position", "patches", "norm", *(f"block_{i:02d}" for i in range(2))]
    )
    assert shapes["position"] == (17, 64) and shapes["class_token"] == (64,)
    assert shapes["patches"] == {"kernel": (4, 4, 3, 64), "bias": (64,)}
    assert shapes["block_01"]["scale2"] == {"gamma": (64,)}
    assert "scale1" not in vit.abstract_parameters(settings.ViT(variant="Pico/4"), 8)["block_00"]


def test_site_shapes_are_those_of_the_kernels():
    shapes = vit.site_shapes(PICO, SITES, (0, 1))
    assert list(shapes) == ["block_00", "block_01"]
    for block, entry in shapes.items():
        assert entry == {site: PARAMS[block][site]["kernel"].shape for site in SITES}


def test_shared_parameters_of_b16_are_those_of_the_paper():
    # q and v of 12 blocks at r = 10 (oracle of the method): A and B, and the two task factors.
    shapes = vit.site_shapes(settings.ViT(), ("q", "v"), tuple(range(12)))
    kernels = [shape for entry in shapes.values() for shape in entry.values()]
    assert sum(10 * sum(shape) for shape in kernels) == 368_640
    assert sum(2 * 10 * 10 for _ in kernels) == 4_800


def test_adapters_equal_merged_kernels():
    entries = adapters((0, 1))
    merged = jax.tree.map(np.copy, PARAMS)
    for block, sites in entries.items():
        for site, factors in sites.items():
            merged[block][site]["kernel"] += factors["a"] @ factors["core"] @ factors["b"].T
    got = features({"params": PARAMS, "adapter": entries})
    wanted = features({"params": merged})
    assert np.abs(wanted - features({"params": PARAMS})).max() > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_each_site_reaches_the_features_and_recomputation_changes_no_gradient():
    entries = adapters((0,))

    def slope(remat):
        module = vit.VisionTransformer(dataclasses.replace(PICO, remat=remat), SIZE)

        def total(entries):
            return jnp.sum(module.apply({"params": PARAMS, "adapter": entries}, IMAGES) ** 3)

        return jax.jit(jax.grad(total))(entries)

    plain = jax.tree.leaves(slope("none"))
    for again in (slope("cheap"), slope("blocks")):
        for one, other in zip(plain, jax.tree.leaves(again), strict=True):
            assert np.abs(one).max() > 1e-2
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_prompt_tokens_change_features_and_have_no_order():
    prompt = np.random.default_rng(3).normal(size=(4, 64)).astype(np.float32)
    plain = features({"params": PARAMS})
    got = features({"params": PARAMS}, prompt=prompt)
    assert got.shape == plain.shape == (3, 64) and got.dtype == jnp.float32
    assert np.abs(got - plain).max() > 0.01
    # Without positions, attention cannot tell one order of the prompt from another.
    turned = features({"params": PARAMS}, prompt=prompt[::-1].copy())
    np.testing.assert_allclose(got, turned, rtol=1e-4, atol=1e-4)
    none = features({"params": PARAMS}, prompt=np.zeros((0, 64), np.float32))
    np.testing.assert_allclose(none, plain, rtol=1e-5, atol=1e-5)


def test_a_prompt_token_counts_as_the_patch_it_equals():
    """A patch that also stands in the prompt: attention sees one token twice, as if doubled."""
    params = jax.tree.map(np.copy, PARAMS)
    params["position"][2:] = params["position"][1]
    images = np.tile(IMAGES[:, :4, :4], (1, 4, 4, 1))  # sixteen equal patches
    kernel = params["patches"]["kernel"].reshape(-1, 64)
    token = images[:1, :4, :4].reshape(1, -1) @ kernel + params["patches"]["bias"]
    token = token + params["position"][1:2]
    plain = features({"params": params}, images)
    doubled = features({"params": params}, images, np.repeat(token, 16, axis=0))
    assert np.abs(doubled[0] - plain[0]).max() > 1e-3  # the class token now weighs half as much
    # 64 equal patches are the 16 patches and 48 equal prompt tokens.
    rows = np.repeat(params["position"][1:2], 64, axis=0)
    larger = dict(params, position=np.concatenate([params["position"][:1], rows]))
    wanted = compiled(size=2 * SIZE)({"params": larger}, np.tile(images, (1, 2, 2, 1)))
    got = features({"params": params}, images, np.repeat(token, 48, axis=0))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-4)


def test_bfloat16_agrees_roughly_and_returns_float32():
    full = features({"params": PARAMS})
    half = features({"params": PARAMS, "adapter": {}}, dtype="bfloat16")
    stored = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    frozen = features({"params": stored}, dtype="bfloat16")
    for found in (half, frozen):
        assert found.dtype == jnp.float32
        error = np.abs(found - full)
        assert 0 < error.mean() < 0.03 * np.abs(full).mean()


def test_features_do_not_depend_on_the_batch():
    alone = features({"params": PARAMS}, IMAGES[1:2])
    np.testing.assert_allclose(features({"params": PARAMS})[1:2], alone, rtol=1e-5, atol=1e-5)


def test_random_parameters_have_the_sizes_that_they_are_drawn_from():
    params = jax.jit(lambda key: vit.init_parameters(PICO, SIZE, key))(jax.random.key(0))
    # 0.8796 is the spread of a standard normal that is cut at two.
    assert float(params["position"].std()) == pytest.approx(0.02 * 0.8796, rel=0.1)
    wanted = math.sqrt(2 / (64 + 256))  # Glorot
    assert float(params["block_01"]["fc1"]["kernel"].std()) == pytest.approx(wanted, rel=0.1)
    assert not np.any(params["block_01"]["fc1"]["bias"])


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 16, 16, 1\]: .* \[B, 16, 16, 3\].*grey"):
        features({"params": PARAMS}, np.zeros((1, SIZE, SIZE, 1), np.float32))
