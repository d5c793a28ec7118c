"""What held-out training images decide: the temperature of each head, and its means.

Some training images of a task stay out of the statistics at first. The heads that were solved
without them score them; then they are added, too. No test image is used.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

_LOG_RANGE = (-12.0, 12.0)
"""Limits of the logarithm of a temperature."""


class HeldOut:
    """Sums over the held-out images of all tasks, an entry for each head: all arrays are [H].

    State: `images`; `log_temperature`, the sum of each image's log T; `right_class` and
    `right_domain`, right answers with one mean for each class and for each domain of a class.
    """

    key = "held_out"

    def __init__(self, heads: Mapping[str, object]):
        self.names = tuple(heads)

    def init(self) -> dict:
        """Zeros."""
        names = ("images", "log_temperature", "right_class", "right_domain")
        return {name: jnp.zeros(len(self.names)) for name in names}

    def add(self, state: dict, scores: Mapping, by_domain: Mapping | None, labels) -> dict:
        """Adds the held-out images of a task.

        scores: [N, C] of each head by name; by_domain: those with a mean for each domain, or None;
        labels: [N].
        """
        added = {name: np.array(value) for name, value in state.items()}
        for row, name in enumerate(self.names):
            answers = scores[name].argmax(axis=1)
            others = answers if by_domain is None else by_domain[name].argmax(axis=1)
            added["images"][row] += len(labels)
            added["log_temperature"][row] += len(labels) * log_temperature(scores[name], labels)
            added["right_class"][row] += np.sum(answers == labels)
            added["right_domain"][row] += np.sum(others == labels)
        return added

    def temperature(self, state: dict) -> dict[str, float]:
        """The temperature of each head: the geometric mean over images; 1 if there are none."""
        mean = state["log_temperature"] / np.maximum(state["images"], 1)
        return {name: float(np.exp(value)) for name, value in zip(self.names, mean, strict=True)}

    def by_domain(self, state: dict) -> dict[str, bool]:
        """Whether a mean for each domain answered more held-out images right; no for equal."""
        more = np.asarray(state["right_domain"]) > np.asarray(state["right_class"])
        return {name: bool(value) for name, value in zip(self.names, more, strict=True)}


def split(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Which of the images with `labels` [N] are held out: bool [N].

    It is `share` of each class, rounded down; a class of one image keeps it.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen[rows[: int(share * len(rows))]] = True
    return chosen


def log_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """log T of the softmax of scores / T with the least cross-entropy (Guo et al. 2017).

    scores: [N, C], -inf for classes that are not learned; labels: [N].
    """
    scores = np.asarray(scores, np.float64)
    known = np.isfinite(scores).any(axis=0)
    if known.sum() < 2:
        return 0.0
    # The scores differ by orders of magnitude between heads; the search starts at their size.
    shifted = scores[:, known] - scores[np.arange(len(labels)), labels][:, None]
    scale = np.log(max(np.abs(shifted).mean(), np.finfo(np.float64).tiny))

    def loss(log: float) -> float:
        return special.logsumexp(shifted / np.exp(log + scale), axis=1).mean()

    found = optimize.minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded")
    return float(found.x + scale)
