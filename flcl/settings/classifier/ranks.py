"""The forms of `rank.selector`, and the candidates that some of them choose from."""

import re

SELECTORS = ("centred", "literal", "full", "fixed:R", "energy:SHARE", "holdout:TOLERANCE")


def parsed(rank, most: int, name: str) -> tuple[str, float]:
    """`(kind, number)` of `rank.selector`: `energy:0.99` is `("energy", 0.99)`.

    The kinds are centred, literal, fixed (also for `full`), energy and holdout; a kind without a
    number has 0. rank: the section `rank`. most: the columns of A and B; name: their key.

    Raises `ValueError` for an unknown selector, for a number outside its range and for invalid
    candidates.
    """
    selector = rank.selector
    kind, colon, number = selector.partition(":")
    if kind in ("centred", "literal", "holdout"):
        _check_candidates(rank, most, name)
    if selector in ("centred", "literal"):
        return kind, 0.0
    if selector == "full":
        return "fixed", most
    if kind in ("energy", "holdout") and colon:
        return kind, _share(selector, number, 1.0 if kind == "energy" else 0.0)
    if kind != "fixed" or not re.fullmatch(r"\d{1,9}", number, re.ASCII):
        raise ValueError(f"rank.selector={selector!r}: accepted are {', '.join(SELECTORS)}")
    if not 1 <= int(number) <= most:
        raise ValueError(f"rank.selector={selector!r}: R must be 1 to {name}={most}")
    return "fixed", int(number)


def _share(selector: str, number: str, included: float) -> float:
    """A number between 0 and 1, one of which is `included`."""
    valid = re.fullmatch(r"\d{0,9}\.?\d{1,9}(e-?\d{1,2})?", number, re.ASCII)
    if valid and (0 < float(number) < 1 or float(number) == included):
        return float(number)
    words = "above 0 and at most 1" if included else "at least 0 and below 1"
    raise ValueError(f"rank.selector={selector!r}: the number after the colon must be {words}")


def _check_candidates(rank, most: int, name: str) -> None:
    """Raises `ValueError` for candidates above `most` columns or in an invalid order.

    name: the key that `most` comes from.
    """
    high = [each for each in rank.candidates if each > most]
    if high:
        raise ValueError(
            f"rank.candidates={rank.candidates}: {high[0]} exceeds {name}={most}, the "
            "columns that the shared subspace has"
        )
    if list(rank.candidates) != sorted(set(rank.candidates)):
        raise ValueError(
            f"rank.candidates={rank.candidates}: must ascend, each rank once, such as 2,4,6"
        )
    if rank.final_temperature > rank.temperature:
        raise ValueError(
            f"rank.final_temperature={rank.final_temperature}: exceeds "
            f"rank.temperature={rank.temperature}; the choice sharpens, so it must fall"
        )
