"""Heads of a classifier by the name that results, tables and `--head` use.

A new head is one file, which implements `base.Head`, and one line here; its keys are in
`settings/classifier/heads.py`.
"""

from collections.abc import Callable

from flcl.heads.base import Head
from flcl.heads.class_mean import ClassMean
from flcl.heads.gaussian import Gaussian
from flcl.heads.lda import LDA
from flcl.heads.linear import Linear
from flcl.heads.ridge import Ridge

HEADS: dict[str, Callable[..., Head]] = {
    "linear": Linear,
    "class_mean": ClassMean,
    "lda": LDA,
    "ridge": Ridge,
    "gaussian": Gaussian,
}
"""Each is built from (settings of the run, width of the features, capacity, slots)."""
