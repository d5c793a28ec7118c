"""The weight gradient in pieces against the derivative of lax, and what it compiles to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.ops.convolution import kernel_gradient, piece_images, plain_conv


def case(batch, size, cin=32, cout=40, k=3, stride=1, dtype=jnp.float32):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, size, size, cin))
    kernel = generator.normal(size=(k, k, cin, cout)) / (k * cin**0.5)
    grad = generator.normal(size=(batch, -(-size // stride), -(-size // stride), cout))
    return tuple(jnp.asarray(v, dtype) for v in (x, kernel, grad))


def naive(x, grad, k, stride):
    """Tap by tap and image by image in float64."""
    x, grad = np.asarray(x, np.float64), np.asarray(grad, np.float64)
    pad, (_, height, width, _) = k // 2, grad.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.zeros((k, k, x.shape[-1], grad.shape[-1]))
    for row in range(k):
        for column in range(k):
            window = x[:, row : row + stride * height : stride]
            window = window[:, :, column : column + stride * width : stride]
            out[row, column] = np.einsum("nhwi,nhwo->io", window, grad)
    return out


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("batch", "size", "cin", "cout", "k", "stride"),
    [
        (16, 32, 32, 40, 3, 1),  # one image per device and piece
        (8, 64, 32, 33, 3, 2),
        (16, 33, 32, 32, 3, 2),  # an odd image: the last row has no right neighbour
        (40, 16, 34, 32, 5, 1),
        (24, 16, 3, 40, 3, 1),  # too narrow for pieces
        (7, 9, 6, 5, 3, 2),
    ],
)
def test_kernel_gradients_equal_the_naive_sum(pieces, dtype, batch, size, cin, cout, k, stride):
    x, _, grad = case(batch, size, cin, cout, k, stride, dtype)
    got = kernel_gradient(x, grad, size=k, stride=stride, pieces=pieces)
    assert got.dtype == dtype
    want = naive(x, grad, k, stride)
    tolerance = (1e-5 if dtype == jnp.float32 else 2e-2) * np.abs(want).max()
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=tolerance)


def reference(x, kernel, stride):
    pad = kernel.shape[0] // 2
    layout = ("NHWC", "HWIO", "NHWC")
    strides, padding = (stride, stride), [(pad, pad)] * 2
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)


@pytest.mark.parametrize("size", [32, 15])
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
def test_values_and_gradients_equal_those_of_lax(k, stride, size):
    x, kernel, grad = case(16, size, k=k, stride=stride)

    def loss(conv, x, kernel):
        return jnp.vdot(conv(x, kernel, stride), grad)

    for wrap in (lambda f: f, jax.jit):
        got = wrap(jax.value_and_grad(lambda *a: loss(plain_conv, *a), (0, 1)))(x, kernel)
        want = wrap(jax.value_and_grad(lambda *a: loss(reference, *a), (0, 1)))(x, kernel)
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-3)


def test_vmap_over_images_and_over_kernels():
    x, kernel, grad = case(6, 8, cin=4, cout=5)

    def loss(x, kernel):
        return jnp.vdot(plain_conv(x[None], kernel)[0], grad[0])

    gradient = jax.grad(loss, argnums=(0, 1))
    got = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(x, kernel)
    want = [gradient(image, kernel) for image in x]
    for axis in (0, 1):
        rows = np.stack([w[axis] for w in want])
        np.testing.assert_allclose(got[axis], rows, rtol=1e-4, atol=1e-4)
    kernels = jnp.stack([kernel, 2 * kernel])
    got = jax.vmap(gradient, in_axes=(None, 0))(x[0], kernels)[0]
    np.testing.assert_allclose(got[1], 2 * got[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("batch", "pixels", "devices", "images"),
    [
        (16, 1024, 1, 2),
        (16, 1024, 8, 16),  # two images on each device
        (64, 1024, 8, 16),
        (64, 256, 1, 8),
        (30, 256, 1, 6),
        (20, 256, 1, 4),  # not five: a multiple of four fills vector registers
        (32, 64, 1, 32),
        (31, 1024, 1, 1),
        (31, 256, 8, 1),  # not shared evenly: nothing to keep together
        (37, 64, 1, 37),  # a prime: single small images would be slower than all at once
        (4, 16384, 1, 1),
    ],
)
def test_pieces_divide_the_batch(batch, pixels, devices, images):
    assert piece_images(batch, pixels, devices) == images
    assert batch % images == 0


def compiled_gradient(batch, size):
    mesh = meshes.make_mesh()
    x, kernel, grad = case(batch, size)
    spread, same = sharding.over_devices(mesh), sharding.replicated(mesh)

    def gradient(x, kernel, grad):
        return jax.vjp(lambda k: plain_conv(x, k), kernel)[1](grad)[0]

    jitted = jax.jit(gradient, in_shardings=(spread, same, spread), out_shardings=same)
    return jitted.lower(x, kernel, grad).compile(), (x, kernel, grad)


def test_pieces_never_gather_the_batch_across_devices():
    compiled, (x, kernel, grad) = compiled_gradient(32, 32)
    text = compiled.as_text()
    assert "conditional(" not in text  # the choice of platform costs nothing
    assert "while" in text  # 32 images of 32 pixels: two pieces on each device
    assert "all-reduce" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))
    want = kernel_gradient(x, grad, size=3, stride=1)
    np.testing.assert_allclose(compiled(x, kernel, grad), want, rtol=1e-3, atol=1e-3)


def test_other_platforms_keep_the_derivative_of_lax():
    x, kernel, grad = case(32, 32)

    def gradient(x, kernel, grad):
        return jax.vjp(lambda k: plain_conv(x, k), kernel)[1](grad)[0]

    def lowered(platform):
        traced = jax.jit(gradient).trace(x, kernel, grad)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.while" in lowered("cpu")
    for platform in ("tpu", "cuda"):
        text = lowered(platform)
        assert "stablehlo.while" not in text
        assert text.count("stablehlo.convolution") == 1
