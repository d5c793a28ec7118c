"""Resizes the positions of a weights file to the grid of another image size, as its family does.

All four ways resize both axes with one matrix. They differ in the kernel and in the place of the
sampling points, also when a grid becomes larger.
"""

import math

import numpy as np


def grid_of(tokens: int) -> tuple[int, bool] | None:
    """(side of the grid, whether the class token has a position) of that many positions.

    None if the patches do not form a square.
    """
    for with_class in (True, False):
        side = math.isqrt(max(tokens - with_class, 0))
        if side and side**2 == tokens - with_class:
            return side, with_class
    return None


def resize(position: np.ndarray, side: int, method: str) -> np.ndarray:
    """Positions [1 + side**2, width], class token first, from those of another grid.

    position: [1 + old**2, width], or [old**2, width] without a position for the class token, which
    is then zero: such models (timm's `no_embed_class`, big_vision) add nothing to the class token.

    method: a value of `model.position_resize`:
      bicubic: a = -0.75, repeated edges, no antialiasing, as Hugging Face's ViT and Dinov2.
      bicubic_antialias: a = -0.5 and edges that are left out, as `resample_abs_pos_embed` of timm
        and as both DINOv2 with registers. PyTorch changes `a` together with antialiasing, so
        larger grids differ, too.
      bicubic_offset: `bicubic` for a grid of side + 0.1, as the code of DINOv2 without registers.
      bilinear: the corners stay in place, as `scipy.ndimage.zoom` with order 1 in AugReg and
        big_vision.
    """
    old, with_class = grid_of(len(position)) or (0, True)
    if not old:
        raise ValueError(f"{len(position)} positions: not a square grid, with or without a class")
    if not with_class:
        position = np.concatenate([np.zeros_like(position[:1]), position])
    if old == side:
        return position
    weights = _MATRICES[method](old, side)
    grid = position[1:].reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("ya,xb,abw->yxw", weights, weights, grid, optimize=True)
    resized = np.concatenate([position[:1], grid.reshape(side**2, -1)])
    return resized.astype(position.dtype)


def _bicubic(old: int, new: int, offset: float = 0.0) -> np.ndarray:
    """Matrix [new, old] that resizes one axis (Keys 1981, with a = -0.75)."""
    centre = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        column = np.clip(first + tap, 0, old - 1)  # edges are repeated
        weight = _keys(np.abs(centre - (first + tap)), -0.75)
        np.add.at(matrix, (np.arange(new), column), weight)
    return matrix


def _bicubic_antialias(old: int, new: int) -> np.ndarray:
    """Matrix [new, old] of Pillow's bicubic filter: a = -0.5, wider where the grid shrinks."""
    scale = old / new
    centre = (np.arange(new)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centre) / max(scale, 1.0)
    matrix = np.where(distance < 2, _keys(distance, -0.5), 0.0)
    # What lies beyond the edge is left out, and the other weights are made larger.
    return matrix / matrix.sum(1, keepdims=True)


def _bilinear(old: int, new: int) -> np.ndarray:
    """Matrix [new, old] of linear interpolation between aligned corners."""
    points = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(points[:, None] - np.arange(old)))


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The kernel of Keys 1981 at distances x from 0 to 2."""
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, far)


_MATRICES = {
    "bicubic": _bicubic,
    "bicubic_antialias": _bicubic_antialias,
    "bicubic_offset": lambda old, new: _bicubic(old, new, 0.1),
    "bilinear": _bilinear,
}
