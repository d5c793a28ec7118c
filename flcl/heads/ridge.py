"""Ridge regression from features, or from random features of them, to one-hot labels (RanPAC)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from scipy import linalg

from flcl.heads.base import affine
from flcl.heads.moments import Moments
from flcl.heads.projection import Projection

_GRID = 10.0 ** np.arange(-8, 10)
"""The weights that RanPAC's public code tries."""

_FITTED = 0.8
"""The share of a task's images that its rule fits; the others choose."""


class Ridge:
    """W = (X' X + lambda I)^-1 X' Y; scores are x W + b.

    `ridge.centred`: X and Y are centred, and b puts the means back. lambda is `ridge.penalty` times
    the mean eigenvalue of X' X, or the weight that `ridge.rule=split` chose in the newest task.
    """

    def __init__(self, run, width: int, capacity: int, slots: int | None):
        keys = run.ridge
        self.penalty, self.centred = keys.penalty, keys.centred
        self.lift = Projection(run.seed, width, keys.width, keys.unit) if keys.width else None
        # One mean of a class is enough: regression compares no means.
        self.moments = (
            Moments(width, capacity, slots, scatter=True)
            if self.lift is None
            else Moments(keys.width, capacity, None, True, "projected", self.lift)
        )
        self.chosen = Chosen(self.lift) if keys.rule == "split" else None
        self.statistics = (self.moments, *([self.chosen] if self.chosen else []))

    def solve(self, states, by_domain):
        """kernel [1, d, C] and bias [1, C], and the projection if there is one."""
        del by_domain
        classes = self.moments.classes(states, by_domain=False)
        count, mean = classes.count[0], classes.mean[0]
        images, centre = classes.overall()
        origin = centre if self.centred else np.zeros_like(centre)
        delta = mean - origin
        system = classes.scatter + (delta * count[:, None]).T @ delta
        if self.chosen is None:
            weight = self.penalty * np.trace(system) / len(system)
        else:
            weight = float(states[self.chosen.key]["weight"])
        # Sums are stored in float32: below this weight their rounding makes the system singular.
        # Without any variance every kernel is zero, and no weight may be zero.
        rounding = 4 * np.finfo(np.float32).eps * np.trace(system) + np.finfo(np.float32).tiny
        system[np.diag_indices_from(system)] += max(weight, rounding)
        kernel = linalg.solve(system, (delta * count[:, None]).T, assume_a="pos")
        share = count / max(images, 1) if self.centred else np.zeros_like(count)
        part = {"kernel": kernel[None], "bias": (share - origin @ kernel)[None]}
        part = {name: value.astype(np.float32) for name, value in part.items()}
        return part | ({"projection": self.lift.matrix} if self.lift else {})

    def scores(self, part, features):
        """The regression of the one-hot label of each class."""
        if self.lift is not None:
            features = self.lift.traced(features, part["projection"])
        return affine(part["kernel"], part["bias"], features)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """RanPAC's rule: fits 80 % of the newest task's images and keeps the weight with least error.

    Unlike other statistics it depends on the order of the tasks, because only the newest counts.
    """

    lift: Projection | None
    key: str = "ridge_weight"

    def init(self, key):
        """1 before the first task."""
        del key
        return {"weight": jnp.ones(())}

    def add(self, state, batch):
        """The weight of the least mean squared error on the last fifth of the task's images."""
        values = batch.features if self.lift is None else self.lift(batch.features)
        values, labels = np.asarray(values, np.float64), np.unique(batch.labels)
        targets = (batch.labels[:, None] == labels).astype(np.float64)
        # The images of a task come class after class, so every fifth is in the second part.
        second = np.arange(len(values)) % 5 == 4
        if second.sum() == 0 or len(labels) == 1:
            return state
        first = values[~second], targets[~second]
        errors = [
            np.square(values[second] @ kernel - targets[second]).mean()
            for kernel in _kernels(*first)
        ]
        return {"weight": np.asarray(_GRID[int(np.argmin(errors))])}

    def moved(self, state, move):
        """Returns `state` unchanged."""
        del move
        return state

    def take(self, state, labels, slot, everything):
        """The weight."""
        del labels, slot, everything
        return state

    def put(self, state, labels, slot, taken):
        """Inverse of `take`."""
        del state, labels, slot
        return taken

    def forget(self, state, label):
        """Returns `state` unchanged: it has no rows."""
        del label
        return state

    def bytes_per_class(self):
        """One weight for all classes."""
        return 0


def _kernels(values: np.ndarray, targets: np.ndarray):
    """The regression kernels [d, K] for every weight of the grid."""
    # By the eigenvectors of the smaller of x' x and x x', because the grid has 18 weights.
    left, singular, right = linalg.svd(values, full_matrices=False)
    projected = left.T @ targets
    for weight in _GRID:
        yield right.T @ (projected * (singular / (singular**2 + weight))[:, None])
