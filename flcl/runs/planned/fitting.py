"""How much of a run fits into a given time, from the seconds that its parts need."""

import dataclasses
from typing import NamedTuple

RESERVE = 0.1
"""Share of the time that is planned for nothing: a machine is not always equally fast."""
EVALUATION = 0.3
"""Share of the rest that samples and judges may take where not all of the training fits."""
FEWEST_EPOCHS, FEWEST_IMAGES = 10.0, 50
"""A judge trains no shorter, and on no fewer images per class, to leave more time for steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """The seconds of a whole run, with the lengths that its settings have.

    Attributes:
      steps: the optimiser steps of all tasks.
      judging: the steps of all judges.
      drawing: all that is done with each generated image.
      fixed: everything else, and what has passed since the run began.
    """

    steps: float = 0.0
    judging: float = 0.0
    drawing: float = 0.0
    fixed: float = 0.0


class Shares(NamedTuple):
    """The parts of the lengths that fit: of all steps, of the judges' epochs, of the samples."""

    steps: float = 1.0
    epochs: float = 1.0
    images: float = 1.0


class Least(NamedTuple):
    """The smallest shares that are of use."""

    steps: float = 0.0
    epochs: float = 0.0
    images: float = 0.0


def fit(minutes: float, needs: Needs, least: Least) -> Shares:
    """The largest shares with which a run takes at most `minutes`; each is at most 1.

    If not all fits, samples and judges get `EVALUATION` of the time: first the judges' epochs
    become fewer, then the images. Raises `ValueError` if the smallest shares take longer.
    """
    room = 60.0 * minutes * (1.0 - RESERVE) - needs.fixed
    # What a short training leaves over is for the judges.
    most = max(EVALUATION * room, room - needs.steps)
    epochs = _share(most - needs.drawing, needs.judging, least.epochs)
    images = _share(most, needs.drawing + epochs * needs.judging, least.images)
    evaluation = images * (needs.drawing + epochs * needs.judging)
    steps = _share(room - evaluation, needs.steps, least.steps)
    total = needs.fixed + evaluation + steps * needs.steps
    if total > 60.0 * minutes:
        needed = total / (1.0 - RESERVE) / 60.0
        raise ValueError(
            f"runtime.minutes={minutes:g}: on this machine {needed:.1f} minutes are needed for the "
            f"fewest steps ({needs.fixed / 60:.1f} of them for everything but training, samples "
            "and judges); give more minutes, or make network, warm-up or number of images smaller"
        )
    return Shares(steps, epochs, images)


def _share(room: float, needed: float, least: float) -> float:
    """The share of `needed` that fits into `room`, from `least` to 1."""
    return min(1.0, max(least, room / needed)) if needed > 0 else 1.0
