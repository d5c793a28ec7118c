"""The largest global batch that fits, from one or a few compiled programs."""

from collections.abc import Callable

ESTIMATE = (
    "estimated from this one program: all memory beyond arguments and code is taken to grow in "
    "proportion to the batch, which is careful: gradients, for one, do not"
)
REFUSED = "estimated from what the compiler says the refused program needs, in the same proportion"
SEARCHED = "compiled, and it fits: the largest of up to three batches that were tried"
_GUESSES = 3


def estimate(figures: dict, usable: int, granule: int) -> int | None:
    """Images of the largest batch that should fit, a multiple of `granule`; 0 = no batch fits.

    figures: figures of one program, see `meter.measure`; usable: bytes of a device. None if the
    compiler refused the program and did not say how much memory it needs.
    """
    needed, memory = figures["required_bytes"], figures["memory"]
    if needed is None:
        return None
    # A refused program has at most all of its parameters on every device.
    fixed = memory["arguments"] + memory["code"] if memory else figures["parameter_bytes"]
    if usable <= fixed or needed <= fixed:
        return 0
    share = (usable - fixed) / (needed - fixed)
    return int(figures["images"] * share) // granule * granule


def largest(figures: dict, usable: int, granule: int) -> dict | None:
    """`{"images", "how"}` from one program; None if unknown."""
    images = estimate(figures, usable, granule)
    if images is None:
        return None
    return {"images": images, "how": ESTIMATE if figures["memory"] else REFUSED}


def search(figures: dict, measure: Callable[[int], dict], usable: int, granule: int) -> dict | None:
    """Like `largest`, but compiles every batch that it tries: at most three more programs.

    measure: returns the figures of the program with another batch.
    """
    best, ceiling, guess = None, None, largest(figures, usable, granule)
    if figures["fits"]:
        best = figures
    else:
        ceiling = figures["images"]
    for _ in range(_GUESSES):
        if guess is None or not guess["images"] or guess["images"] == (best or {}).get("images"):
            break
        tried = measure(guess["images"])
        if tried["fits"]:
            best = tried
        else:
            ceiling = guess["images"]
        next_guess = _next(best, ceiling, tried, usable, granule)
        guess = {"images": next_guess} if next_guess else None
    if best is None:
        return largest(figures, usable, granule)
    return {"images": best["images"], "how": SEARCHED}


def _next(best: dict | None, ceiling: int | None, tried: dict, usable: int, granule: int) -> int:
    """The batch to compile next, from the largest that fits or else from a refused one."""
    low, guess = best["images"] if best else 0, estimate(best or tried, usable, granule)
    if ceiling is None:
        return guess
    if guess is None or not low < guess < ceiling:
        guess = (low + ceiling) // 2 // granule * granule
    return guess if guess > low else 0
