import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.models import resnet


def _shapes(size: int, channels: int, num_classes: int, width: int) -> dict:
    model = resnet.ResNet18(num_classes, width)
    images = jnp.zeros((2, size, size, channels))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def _count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _closed_form(width: int, channels: int, num_classes: int) -> int:
    """Kernels, two norm parameters per channel, and the head, counted stage by stage."""
    total = 9 * channels * width + 2 * width
    before = width
    for multiplier in (1, 2, 4, 8):
        after = multiplier * width
        total += 9 * before * after + 3 * 9 * after * after + 4 * 2 * after
        if before != after:
            total += before * after + 2 * after
        before = after
    return total + before * num_classes + num_classes


def test_published_parameter_count():
    variables = _shapes(32, 3, 10, 64)
    assert _count(variables["params"]) == 11_173_962
    assert _count(variables["batch_stats"]) == 2 * 4_800  # mean and variance of 4,800 channels


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_fewer_stages_are_the_first_ones(stages):
    def names(*arguments) -> set[str]:
        model = resnet.ResNet18(10, 4, *arguments)
        shapes = jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False)
        )
        return set(shapes["params"])

    later = tuple(f"stage{stage}" for stage in range(stages + 1, 5))
    kept = {name for name in names() if not name.startswith(later)}
    assert names(stages) == kept < names()


@pytest.mark.parametrize(("width", "channels", "num_classes"), [(16, 1, 10), (24, 3, 100)])
def test_parameter_count_follows_width(width, channels, num_classes):
    variables = _shapes(8, channels, num_classes, width)
    assert _count(variables["params"]) == _closed_form(width, channels, num_classes)


@pytest.mark.parametrize(("size", "stem"), [(8, 8), (32, 32), (64, 32)])
def test_stem_halves_only_large_images(size, stem):
    model = resnet.ResNet18(5, 8)
    images = jnp.zeros((2, size, size, 3))

    def run():
        return model.init_with_output(
            jax.random.key(0), images, train=False, capture_intermediates=True
        )

    logits, variables = jax.eval_shape(run)
    inside = variables["intermediates"]
    assert inside["stem"]["__call__"][0].shape == (2, stem, stem, 8)
    last = max(1, stem // 8)
    assert inside["stage4_block2"]["__call__"][0].shape == (2, last, last, 64)
    assert logits.shape == (2, 5) and logits.dtype == jnp.float32


def _torch_like_block(x, params, stats, stride):
    """The same block from explicit loops over taps and textbook normalisation."""

    def conv(x, kernel, stride):
        size, pad = kernel.shape[0], kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        side = (x.shape[1] - size) // stride + 1
        out = np.zeros((x.shape[0], side, side, kernel.shape[3]))
        for row in range(side):
            for column in range(side):
                y, z = row * stride, column * stride
                window = x[:, y : y + size, z : z + size]
                out[:, row, column] = np.tensordot(window, kernel, 3)
        return out

    def norm(x, name):
        scale, bias = params[name]["scale"], params[name]["bias"]
        mean, var = stats[name]["mean"], stats[name]["var"]
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    y = np.maximum(norm(conv(x, params["conv1"]["kernel"], stride), "norm1"), 0)
    y = norm(conv(y, params["conv2"]["kernel"], 1), "norm2")
    if "shortcut" in params:
        x = norm(conv(x, params["shortcut"]["kernel"], stride), "shortcut_norm")
    return np.maximum(x + y, 0)


@pytest.mark.parametrize(
    ("size", "channels", "stride"), [(5, 4, 1), (6, 6, 2), (2, 6, 2), (1, 4, 1)]
)
def test_block_equals_naive_loops(size, channels, stride):
    block = resnet.BasicBlock(channels, stride)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, size, size, 4)).astype(np.float32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), shapes)
    got = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    wanted = _torch_like_block(x, variables["params"], variables["batch_stats"], stride)
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-4)


def test_train_uses_and_moves_batch_statistics():
    block = resnet.BasicBlock(4, 1)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 3, 3, 4)).astype(np.float32)
    variables = block.init(jax.random.key(0), x, train=False)
    first = jax.lax.conv_general_dilated(
        x,
        variables["params"]["conv1"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    _, moved = block.apply(variables, x, train=True, mutable=["batch_stats"])
    stats = moved["batch_stats"]["norm1"]
    np.testing.assert_allclose(stats["mean"], 0.1 * first.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    wanted = 0.9 + 0.1 * first.var((0, 1, 2))
    np.testing.assert_allclose(stats["var"], wanted, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_maps_keep_value_and_gradient(size, stride):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, size, size, 4))
    kernel = jax.random.normal(keys[1], (3, 3, 4, 5))
    padding, layout = [(1, 1), (1, 1)], ("NHWC", "HWIO", "NHWC")

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=layout
        )

    def ours(x, kernel):
        return resnet.convolve(x, kernel, (stride, stride), padding, dimension_numbers=layout)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(function, weights):
        value, pull = jax.vjp(function, x, kernel)
        return value, pull(weights)

    side = -(-size // stride)
    weights = jax.random.normal(keys[2], (3, side, side, 5))
    got, wanted = (value_and_gradient(function, weights) for function in (ours, plain))
    for mine, reference in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("platform", "products"), [("cpu", 1), ("tpu", 0), ("cuda", 0)])
def test_only_a_cpu_takes_small_maps_as_a_product(platform, products):
    x, kernel = jnp.ones((3, 2, 2, 4)), jnp.ones((3, 3, 4, 5))
    layout = ("NHWC", "HWIO", "NHWC")
    program = jax.jit(
        lambda x, kernel: resnet.convolve(
            x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=layout
        )
    )
    text = program.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert text.count("stablehlo.convolution") == 1 - products
