"""The forms of `sample.grid`, the times of the steps of a solver with fixed steps."""

import re

GRIDS = ("uniform", "cosine", "power:K")
POWERS = (0.1, 10)
"""The smallest and the largest K."""


def power(grid: str) -> float | None:
    """K of `power:K`; None for another grid, and for a K that is not accepted."""
    kind, _, exponent = grid.partition(":")
    if kind != "power" or not re.fullmatch(r"\d{1,2}(\.\d{1,6})?", exponent, re.ASCII):
        return None
    least, most = POWERS
    return float(exponent) if least <= float(exponent) <= most else None


def check(grid: str) -> None:
    """Raises `ValueError` for a grid that has none of the forms."""
    if grid not in ("uniform", "cosine") and power(grid) is None:
        least, most = POWERS
        raise ValueError(
            f"sample.grid={grid!r}: accepted are {', '.join(GRIDS)}, with K from {least} to "
            f"{most}, such as power:2"
        )
