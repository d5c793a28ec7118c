"""Linear discriminant analysis with one shared covariance, shrunk towards a multiple of I."""

import numpy as np
from scipy import linalg

from flcl.heads.base import affine
from flcl.heads.moments import Classes, Moments


class LDA:
    """score_c = x' P m_c - m_c' P m_c / 2 with P the inverse of the shrunk shared covariance.

    Equal class priors: a task with more images of a class does not make it more likely.
    """

    def __init__(self, run, width: int, capacity: int, slots: int | None):
        self.moments = Moments(width, capacity, slots, scatter=True)
        self.statistics = (self.moments,)
        self.shrinkage = run.heads.shrinkage

    def solve(self, states, by_domain):
        """kernel [S, d, C] and bias [S, C]."""
        classes = self.moments.classes(states, by_domain)
        _, centre = classes.overall()
        mean = np.where(classes.count[..., None] > 0, classes.mean - centre, 0.0)
        factor = linalg.cho_factor(shrunk(classes, self.shrinkage))
        flat = mean.reshape(-1, mean.shape[-1])
        kernel = linalg.cho_solve(factor, flat.T).T.reshape(mean.shape)
        # Around the mean of all images: the same differences of scores, with less rounding.
        bias = -np.einsum("scd,scd->sc", kernel, mean / 2 + centre)
        bias = np.where(classes.count > 0, bias, -np.inf)
        kernel = np.swapaxes(kernel, 1, 2).astype(np.float32)
        return {"kernel": kernel, "bias": bias.astype(np.float32)}

    def scores(self, part, features):
        """Log-likelihoods up to a number that is the same for all classes."""
        return affine(part["kernel"], part["bias"], features)


def shrunk(classes: Classes, shrinkage: float) -> np.ndarray:
    """(1 - a) Sigma + a tr(Sigma) / d I, [d, d]; I where no class has two different images."""
    # A shrinkage of 0 and fewer images than features would have no inverse.
    return towards_identity(classes.covariance(), max(shrinkage, 1e-6), np)


def towards_identity(covariance, shrinkage: float, xp):
    """(1 - a) Sigma + a tr(Sigma) / d I, [d, d]; I if Sigma is 0. xp: NumPy, or JAX when traced."""
    width = len(covariance)
    variance = xp.trace(covariance) / width
    mixed = (1 - shrinkage) * covariance + shrinkage * variance * xp.eye(width)
    return xp.where(variance <= 0, xp.eye(width), mixed)
