"""Which arrays are images: their type, and their shape."""

import numpy as np

CHANNELS = (1, 2, 3, 4)
"""Sizes of a last axis that holds channels: grey, grey and alpha, RGB, RGB and alpha."""


def batch(name: str, values: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] of `values`, uint8 [N, H, W] or [N, H, W, C]; otherwise `ValueError`."""
    if values.dtype != np.uint8:
        has, advice = contents(values)
        raise ValueError(f"{name} is {has}; uint8 with values 0 to 255 is needed ({advice})")
    shown = list(values.shape)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[3] not in CHANNELS or 0 in values.shape[1:]:
        raise ValueError(
            f"{name} has shape {shown}; [N, H, W] or [N, H, W, C] with 1 to 4 channels is needed"
            f"{hint(values.shape)}"
        )
    return values


def contents(values: np.ndarray) -> tuple[str, str]:
    """Type and range of an array that is not uint8, and how it becomes uint8."""
    try:
        if values.dtype.kind in "cOSU":
            raise TypeError
        low, high = float(values.min()), float(values.max())
    except (TypeError, ValueError):  # no numbers with an order, or none at all
        return str(values.dtype), "for floats in 0..1: (images * 255).round().astype('uint8')"
    has = f"{values.dtype} with values from {low:g} to {high:g}"
    whole = np.issubdtype(values.dtype, np.integer)
    if not np.isfinite([low, high]).all():
        return has, "replace NaN and infinity first"
    if 0 <= low and high <= 1 and not whole:
        return has, "these are in 0..1: (images * 255).round().astype('uint8')"
    if -1 <= low and high <= 1 and not whole:
        return has, "these are in -1..1: ((images + 1) * 127.5).round().astype('uint8')"
    if 0 <= low and high <= 255:
        return has, f"these fit: images{'' if whole else '.round()'}.astype('uint8')"
    if 0 <= low and high <= 65535 and whole:
        return has, "for 16 bit: (images // 257).astype('uint8')"
    return has, "undo their normalisation, then scale them to 0 to 255"


def hint(shape: tuple[int, ...]) -> str:
    """What to do if the channels of an image, or of a batch of images, come first."""
    if len(shape) == 3 and shape[0] in CHANNELS:
        return "; the channels come last: numpy.transpose(image, (1, 2, 0))"
    if len(shape) == 4 and shape[1] in CHANNELS:
        return "; the channels come last: numpy.transpose(images, (0, 2, 3, 1))"
    return ""
