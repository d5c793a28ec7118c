"""A Gaussian for each class: its own covariance of low rank, mixed with the shared one."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from flcl.heads import drift
from flcl.heads.base import rows, with_rows, without_rows
from flcl.heads.lda import shrunk
from flcl.heads.moments import Moments


@dataclasses.dataclass(frozen=True)
class Covariances:
    """The largest principal axes of each class in each slot: `axes` [S, C, k, d].

    axes' axes is the scatter matrix of the images of a class in one task, cut to rank k. It is
    exact for at most k + 1 images. A class that comes in several tasks keeps the axes of each.
    """

    width: int
    capacity: int
    slots: int
    rank: int
    key: str = "covariances"

    def init(self, key):
        """Zeros: there are no images yet."""
        del key
        return {"axes": jnp.zeros((self.slots, self.capacity, self.rank, self.width))}

    def add(self, state, batch):
        """The axes of the classes of a task."""
        axes = np.array(state["axes"])
        for label in np.unique(batch.labels):
            values = batch.features[batch.labels == label].astype(np.float64)
            _, singular, right = linalg.svd(values - values.mean(axis=0), full_matrices=False)
            kept = min(self.rank, len(singular))
            axes[batch.slot, label, :kept] = singular[:kept, None] * right[:kept]
        return {"axes": axes}

    def moved(self, state, move):
        """axes <- axes W."""
        before, after = (np.asarray(v, np.float64) for v in (move.before, move.after))
        change = drift.fit(before, after, move.correction, move.ridge)
        return state if change is None else {"axes": change.rotated(state["axes"])}

    def take(self, state, labels, slot, everything):
        """The axes of the classes."""
        return state if everything else rows(state, {"axes": (slot, labels)})

    def put(self, state, labels, slot, taken):
        """Inverse of `take`."""
        return with_rows(state, {"axes": (slot, labels)}, taken)

    def forget(self, state, label):
        """Zeros in the axes of the class, in every slot."""
        return without_rows(state, {"axes": (slice(None), label)})

    def bytes_per_class(self):
        """k axes for each slot, in float32."""
        return 4 * self.slots * self.rank * self.width


class Gaussian:
    """score_c = -((x - m_c)' Sigma_c^-1 (x - m_c) + log |Sigma_c|) / 2.

    Sigma_c = (1 - w) Sigma + w S_c / (n_c - 1): Sigma is the shrunk shared covariance of LDA, S_c
    the scatter of the class, w is `gaussian.weight`. In the coordinates in which (1 - w) Sigma is
    I, the inverse is I - V_c' V_c with the few rows V_c (Woodbury's identity).
    """

    def __init__(self, run, width: int, capacity: int, slots: int | None):
        self.moments = Moments(width, capacity, slots, scatter=True)
        self.axes = Covariances(width, capacity, slots or 1, run.gaussian.rank)
        self.statistics = (self.moments, self.axes)
        self.shrinkage, self.weight = run.heads.shrinkage, run.gaussian.weight

    def solve(self, states, by_domain):
        """Parts `whiten` [d, d], `mean` [S, C, d], `axes` [S, C, k, d] and `offset` [S, C]."""
        classes = self.moments.classes(states, by_domain)
        root = linalg.cholesky((1 - self.weight) * shrunk(classes, self.shrinkage), lower=True)
        scattered = states[self.axes.key]["axes"]
        if not by_domain:  # the scatter of a class is the sum over its tasks, and between them
            scattered = _beside(scattered, self.moments.classes(states, True), classes)
        factor = np.sqrt(self.weight / np.maximum(classes.count - 1, 1))
        scaled = scattered * factor[..., None, None]
        white = linalg.solve_triangular(root, scaled.reshape(-1, scaled.shape[-1]).T, lower=True)
        inside, half_log = _woodbury(white.T.reshape(scaled.shape))
        _, centre = classes.overall()
        mean = classes.mean - centre
        flat = mean.reshape(-1, mean.shape[-1]).T
        part = {
            "whiten": linalg.solve_triangular(root, np.eye(len(root)), lower=True).T,
            "centre": centre,
            "mean": linalg.solve_triangular(root, flat, lower=True).T.reshape(mean.shape),
            "axes": inside,
            "offset": np.where(classes.count > 0, half_log, np.inf),
        }
        return {name: value.astype(np.float32) for name, value in part.items()}

    def scores(self, part, features):
        """Log-likelihoods up to a number that is the same for all classes."""
        chex.assert_shape(features, (None, len(part["centre"])))
        high = jax.lax.Precision.HIGHEST
        white = jnp.matmul(features - part["centre"][None], part["whiten"], precision=high)
        delta = white[:, None, None] - part["mean"][None]
        along = jnp.einsum("bscd,sckd->bsck", delta, part["axes"], precision=high)
        distance = jnp.square(delta).sum(-1) - jnp.square(along).sum(-1)
        scores = (-distance / 2 - part["offset"][None]).max(axis=1)
        return jnp.maximum(scores, jnp.finfo(scores.dtype).min)


def _beside(axes: np.ndarray, domains, classes) -> np.ndarray:
    """Axes [1, C, S k + S, d] of classes whose slots are counted together."""
    between = domains.mean - classes.mean
    between *= np.sqrt(domains.count)[..., None]
    together = np.concatenate([axes, between[:, :, None]], axis=2)
    slots, count, rank, width = together.shape
    return np.swapaxes(together, 0, 1).reshape(1, count, slots * rank, width)


def _woodbury(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For U = `scaled`: V [S, C, k, d] with (I + U' U)^-1 = I - V' V, and log |I + U' U| / 2."""
    inner = np.einsum("sckd,scld->sckl", scaled, scaled) + np.eye(scaled.shape[2])
    values, vectors = np.linalg.eigh(inner)
    root = np.einsum("sckl,scl,scml->sckm", vectors, values**-0.5, vectors)
    return np.einsum("sckl,scld->sckd", root, scaled), np.log(values).sum(-1) / 2
