"""Resized positions against the public implementations that each family uses."""

import itertools
import typing
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from flcl import settings
from flcl.models.pretrained import positions

REFERENCE = np.load(Path(__file__).parents[1] / "vit_reference.npz")


@pytest.mark.parametrize(("old", "new"), [(37, 8), (5, 12), (8, 5), (14, 16)])
def test_bicubic_is_that_of_torch(old, new):
    """Stored: interpolate(mode="bicubic", align_corners=False) of torch 2.13 on the same grid."""
    grid = np.random.RandomState(old).normal(0, 1, (old * old, 3)).astype(np.float32)
    token = np.full((1, 3), 7.0, np.float32)
    got = positions.resize(np.concatenate([token, grid]), new, "bicubic")
    assert got.shape == (1 + new * new, 3) and got.dtype == np.float32
    np.testing.assert_array_equal(got[:1], token)
    wanted = REFERENCE[f"grid_{old}_{new}"].reshape(-1, 3)
    np.testing.assert_allclose(got[1:], wanted, rtol=0, atol=1e-5)


def grid_of(side, seed=0):
    return np.random.default_rng(seed).normal(size=(side * side, 3)).astype(np.float32)


def pillow(grid, old, new):
    """Pillow's bicubic filter: PyTorch's `antialias=True` was written after it."""
    planes = np.moveaxis(grid.reshape(old, old, -1), -1, 0)
    resized = [Image.fromarray(p).resize((new, new), Image.Resampling.BICUBIC) for p in planes]
    return np.stack([np.asarray(p) for p in resized], -1).reshape(new * new, -1)


def zoom(grid, old, new):
    """What the code of AugReg and big_vision calls."""
    factors = (new / old, new / old, 1)
    return scipy.ndimage.zoom(grid.reshape(old, old, -1), factors, order=1).reshape(new * new, -1)


def keys(x):
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def offset(grid, old, new):
    """Point by point: interpolate(scale_factor=(new + 0.1) / old, mode="bicubic") of torch."""
    square, scale = grid.reshape(old, old, -1).astype(np.float64), (new + 0.1) / old
    out = np.zeros((new, new, grid.shape[-1]))
    for i in range(new):
        for j in range(new):
            y, x = (i + 0.5) / scale - 0.5, (j + 0.5) / scale - 0.5
            for row in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for column in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    value = square[min(max(row, 0), old - 1), min(max(column, 0), old - 1)]
                    out[i, j] += keys(y - row) * keys(x - column) * value
    return out.reshape(new * new, -1)


@pytest.mark.parametrize(("old", "new"), [(5, 12), (12, 5), (7, 8), (2, 9), (9, 1)])
@pytest.mark.parametrize(
    ("method", "reference"),
    [("bicubic_antialias", pillow), ("bilinear", zoom), ("bicubic_offset", offset)],
)
def test_each_family_resizes_in_its_own_way(method, reference, old, new):
    grid, token = grid_of(old), np.full((1, 3), 7.0, np.float32)
    got = positions.resize(np.concatenate([token, grid]), new, method)
    np.testing.assert_array_equal(got[:1], token)
    np.testing.assert_allclose(got[1:], reference(grid, old, new), rtol=0, atol=1e-5)


def test_the_ways_differ_also_when_a_grid_becomes_larger():
    position = np.concatenate([np.zeros((1, 3), np.float32), grid_of(4)])
    ways = typing.get_args(typing.get_type_hints(settings.ViT)["position_resize"])
    resized = [positions.resize(position, 7, way) for way in ways if way != "weights"]
    assert len(resized) == 4
    for one, other in itertools.combinations(resized, 2):
        assert np.abs(one - other).max() > 0.01


def test_positions_without_one_for_the_class_token():
    grid = grid_of(4)
    got = positions.resize(grid, 4, "bicubic")
    np.testing.assert_array_equal(got, np.concatenate([np.zeros((1, 3), np.float32), grid]))
    assert got.dtype == np.float32
    resized = positions.resize(grid, 6, "bilinear")
    assert not resized[0].any()
    np.testing.assert_allclose(resized[1:], zoom(grid, 4, 6), rtol=0, atol=1e-5)
    assert [positions.grid_of(n) for n in (0, 1, 2, 5, 16, 17)] == [
        None, (1, False), (1, True), (2, True), (4, False), (4, True),
    ]  # fmt: skip
    assert positions.grid_of(13) is None
    with pytest.raises(ValueError, match="13 positions: not a square grid"):
        positions.resize(np.zeros((13, 3)), 4, "bicubic")
