"""Heads of a classifier by the name that results, tables and `--head` use.

A new head is one file and one line here; what it scores with is `base.Head`.
"""

from flcl.heads.base import Head
from flcl.heads.class_mean import ClassMean
from flcl.heads.linear import Linear

HEADS: dict[str, Head] = {"linear": Linear(), "class_mean": ClassMean()}
