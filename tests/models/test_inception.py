"""InceptionV3 of the FID against torch-fidelity 0.4.0 with the same weights.

`inception_reference.npz` has its features of one image with the weights of `weights` below, and
some pixels of it resized. With these weights and two sets of 24 images of 20x16 pixels (x86 CPU,
PyTorch 2.14, 2026-11-28), features differed by at most 4e-7, and those of 320x310 pixels by 3e-7.
The Frechet distance was 0.103221 in both. The kernel distance was 1.5515e-4 here and 1.5521e-4
there, where it is computed in float32.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from flcl.models import inception

REFERENCE = Path(__file__).parent / "inception_reference.npz"


def weights() -> dict[str, np.ndarray]:
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in sorted(inception.shapes().items()):
        values = rng.standard_normal(shape, np.float32)
        if len(shape) == 4:
            values *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("running_var"):
            values = 1 + np.abs(values) * np.float32(0.3)
        elif "bn.weight" in name:
            values = 1 + values * np.float32(0.1)
        else:
            values = values * np.float32(0.1)
        tensors[name] = values
    return tensors


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 20, 16, 3), dtype=np.uint8)[:1]


def test_features_and_the_resize_are_those_of_torch_fidelity():
    with np.load(REFERENCE) as reference:
        resized = np.asarray(inception.resized(image().astype(np.float32)))
        np.testing.assert_allclose(resized[0, ::23, ::23], reference["resized"], atol=1e-3)
        features = jax.jit(inception.features)(inception.folded(weights()), image())
        np.testing.assert_allclose(features[0], reference["features"], atol=1e-4)


def test_the_sizes_are_those_of_the_published_network():
    """23.9 million parameters with the 1,008 classes of the last layer (2,048 * 1,008 + 1,008)."""
    shapes = inception.shapes()
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    counted = [np.prod(s) for name, s in shapes.items() if "running" not in name]
    assert sum(counted) == 21_785_568


def test_a_file_of_another_network_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    tensors = {"Conv2d_1a_3x3.conv.weight": np.zeros((32, 1, 3, 3), np.float32)}
    path.write_bytes(safetensors.numpy.save(tensors))
    with pytest.raises(ValueError, match=r"not the InceptionV3 of the FID: 470 tensors .*\[32, 1"):
        inception.load(path)
