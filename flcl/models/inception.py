"""InceptionV3 of the FID (Szegedy et al. 2016, as Heusel et al. 2017 froze it): features only.

The weights are those of TensorFlow from 2015 that torch-fidelity and pytorch-fid give out, under
the names of their file. Three details differ from the network of the paper: averages at the border
count no padding, the last block pools by the maximum, and images are resized as TensorFlow 1 did.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from flcl.models.pretrained.torch_files import read_tensors

SIZE = 299
"""Side in pixels of the images that the network sees."""

WIDTH = 2048
"""Number of features."""

_EPSILON = 1e-3  # of the batch norms


class _Conv(NamedTuple):
    """A convolution without bias, then batch norm and ReLU."""

    name: str
    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


def _same(name: str, channels: int, height: int, width: int | None = None) -> _Conv:
    """A convolution that keeps the size of the map."""
    kernel = (height, width or height)
    return _Conv(name, channels, kernel, 1, (kernel[0] // 2, kernel[1] // 2))


# A branch is a chain of convolutions. A tuple in it is a fork: all of them get the same input.
_Branch = tuple["_Conv | tuple[_Conv, ...]", ...]


class _Block(NamedTuple):
    """Branches side by side, and last a pooling branch: "average" or "maximum", with its stride."""

    branches: tuple[_Branch, ...]
    pool: str
    pool_stride: int
    after_pool: tuple[_Conv, ...]


_STEM = (
    _Conv("Conv2d_1a_3x3", 32, (3, 3), 2),
    _Conv("Conv2d_2a_3x3", 32, (3, 3)),
    _same("Conv2d_2b_3x3", 64, 3),
    "maximum",
    _Conv("Conv2d_3b_1x1", 80, (1, 1)),
    _Conv("Conv2d_4a_3x3", 192, (3, 3)),
    "maximum",
)


def _block_a(pooled: int) -> _Block:
    return _Block(
        (
            (_same("branch1x1", 64, 1),),
            (_same("branch5x5_1", 48, 1), _same("branch5x5_2", 64, 5)),
            (
                _same("branch3x3dbl_1", 64, 1),
                _same("branch3x3dbl_2", 96, 3),
                _same("branch3x3dbl_3", 96, 3),
            ),
        ),
        "average",
        1,
        (_same("branch_pool", pooled, 1),),
    )


def _block_b() -> _Block:
    double = (
        _same("branch3x3dbl_1", 64, 1),
        _same("branch3x3dbl_2", 96, 3),
        _Conv("branch3x3dbl_3", 96, (3, 3), 2),
    )
    return _Block(((_Conv("branch3x3", 384, (3, 3), 2),), double), "maximum", 2, ())


def _block_c(inner: int) -> _Block:
    single = (
        _same("branch7x7_1", inner, 1),
        _same("branch7x7_2", inner, 1, 7),
        _same("branch7x7_3", 192, 7, 1),
    )
    double = (
        _same("branch7x7dbl_1", inner, 1),
        _same("branch7x7dbl_2", inner, 7, 1),
        _same("branch7x7dbl_3", inner, 1, 7),
        _same("branch7x7dbl_4", inner, 7, 1),
        _same("branch7x7dbl_5", 192, 1, 7),
    )
    first = (_same("branch1x1", 192, 1),)
    return _Block((first, single, double), "average", 1, (_same("branch_pool", 192, 1),))


def _block_d() -> _Block:
    first = (_same("branch3x3_1", 192, 1), _Conv("branch3x3_2", 320, (3, 3), 2))
    second = (
        _same("branch7x7x3_1", 192, 1),
        _same("branch7x7x3_2", 192, 1, 7),
        _same("branch7x7x3_3", 192, 7, 1),
        _Conv("branch7x7x3_4", 192, (3, 3), 2),
    )
    return _Block((first, second), "maximum", 2, ())


def _block_e(pool: str) -> _Block:
    def fork(name: str) -> tuple[_Conv, ...]:
        return _same(f"{name}a", 384, 1, 3), _same(f"{name}b", 384, 3, 1)

    single = (_same("branch3x3_1", 384, 1), fork("branch3x3_2"))
    double = (
        _same("branch3x3dbl_1", 448, 1),
        _same("branch3x3dbl_2", 384, 3),
        fork("branch3x3dbl_3"),
    )
    first = (_same("branch1x1", 320, 1),)
    return _Block((first, single, double), pool, 1, (_same("branch_pool", 192, 1),))


BLOCKS: dict[str, _Block] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("average"),
    # The frozen graph pools by the maximum here, unlike the block before.
    "Mixed_7c": _block_e("maximum"),
}
"""The blocks after the stem, by name."""


def features(parameters: Mapping, images: jax.Array) -> jax.Array:
    """Features float32 [B, 2048] of images uint8 [B, H, W, 1 or 3]: the mean of the last map.

    parameters: of `folded`.
    """
    chex.assert_rank(images, 4)
    images = jnp.broadcast_to(images, (*images.shape[:3], 3))
    x = (resized(images.astype(jnp.float32)) - 128) / 128
    for layer in _STEM:
        x = _pool(x, "maximum", 2) if layer == "maximum" else _convolve(parameters, "", layer, x)
    for name, block in BLOCKS.items():
        x = block_output(parameters, name, block, x)
    return x.mean(axis=(1, 2))


def resized(images: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 299, 299, C], bilinear, as TensorFlow 1 did without `align_corners`.

    The pixel i of the result is at i H / 299 in the image: the centres of pixels do not fit.
    """
    rows, columns = (_interpolation(side) for side in images.shape[1:3])
    images = jnp.einsum("ih,bhwc->biwc", rows, images, precision="highest")
    return jnp.einsum("jw,biwc->bijc", columns, images, precision="highest")


def block_output(parameters: Mapping, name: str, block: _Block, x: jax.Array) -> jax.Array:
    """The output of one block, its branches side by side: [B, H, W, C] -> [B, H', W', C']."""
    outputs = []
    for branch in block.branches:
        y = x
        for layer in branch:
            fork = layer if isinstance(layer[0], _Conv) else (layer,)
            y = jnp.concatenate([_convolve(parameters, name, each, y) for each in fork], axis=-1)
        outputs.append(y)
    y = _pool(x, block.pool, block.pool_stride)
    for layer in block.after_pool:
        y = _convolve(parameters, name, layer, y)
    return jnp.concatenate([*outputs, y], axis=-1)


def shapes() -> dict[str, tuple[int, ...]]:
    """The name and the shape of every tensor of the file that features need."""
    needed = {}
    for name, layer, channels in _layers():
        needed[f"{name}.conv.weight"] = (layer.channels, channels, *layer.kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            needed[f"{name}.bn.{part}"] = (layer.channels,)
    return needed


def folded(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Kernels [h, w, in, out] and biases by layer: the batch norms become part of them."""
    parameters = {}
    for name, _, _ in _layers():

        def of(part: str, name=name) -> np.ndarray:
            return np.asarray(tensors[f"{name}.{part}"], np.float64)

        scale = of("bn.weight") / np.sqrt(of("bn.running_var") + _EPSILON)
        kernel = of("conv.weight").transpose(2, 3, 1, 0) * scale
        bias = of("bn.bias") - of("bn.running_mean") * scale
        parameters[name] = {"kernel": np.float32(kernel), "bias": np.float32(bias)}
    return parameters


def load(path: Path) -> tuple[dict, str]:
    """The parameters from a .pth or .safetensors file, and its SHA-256.

    Raises `ValueError` in one line for a file that is missing, damaged or of another network.
    """
    tensors, content = read_tensors(path)
    wrong = [
        name if name not in tensors else f"{name} {list(tensors[name].shape)}, needed {[*shape]}"
        for name, shape in shapes().items()
        if name not in tensors or tensors[name].shape != shape
    ]
    if wrong:
        raise ValueError(
            f"{path} is not the InceptionV3 of the FID: {len(wrong)} tensors are missing or have "
            f"another shape, such as {wrong[0]}; get pt_inception-2015-12-05-6726825d.pth of "
            "torch-fidelity"
        )
    return folded(tensors), hashlib.sha256(content).hexdigest()


def _layers() -> Iterator[tuple[str, _Conv, int]]:
    """The full name of every convolution, and the number of its input channels."""
    channels = 3
    for layer in _STEM:
        if isinstance(layer, _Conv):
            yield layer.name, layer, channels
            channels = layer.channels
    for name, block in BLOCKS.items():
        outputs = 0
        for branch in (*block.branches, block.after_pool):
            width = channels
            for layer in branch:
                fork = layer if isinstance(layer[0], _Conv) else (layer,)
                for each in fork:
                    yield f"{name}.{each.name}", each, width
                width = sum(each.channels for each in fork)
            outputs += width
        channels = outputs


def _convolve(parameters: Mapping, block: str, layer: _Conv, x: jax.Array) -> jax.Array:
    entry = parameters[f"{block}.{layer.name}" if block else layer.name]
    padding = [(side, side) for side in layer.padding]
    y = jax.lax.conv_general_dilated(
        x,
        entry["kernel"],
        (layer.stride, layer.stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return jax.nn.relu(y + entry["bias"].reshape(1, 1, 1, -1))


def _pool(x: jax.Array, kind: str, stride: int) -> jax.Array:
    """3x3 pooling; with stride 1 the map keeps its size, with stride 2 nothing is padded."""
    side = 1 if stride == 1 else 0
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    padding = ((0, 0), (side, side), (side, side), (0, 0))
    if kind == "maximum":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding)
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    # TensorFlow divides by the pixels that are inside the map.
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, window, strides, padding)


def _interpolation(side: int) -> jax.Array:
    """Weights float32 [299, side] of the pixels of an image."""
    places = np.arange(SIZE, dtype=np.float32) * np.float32(side / SIZE)
    sources = np.arange(side, dtype=np.float32)
    # Behind the last pixel there is its own value again.
    places = np.minimum(places, np.float32(side - 1))
    return jnp.asarray(np.maximum(0, 1 - np.abs(places[:, None] - sources)))
