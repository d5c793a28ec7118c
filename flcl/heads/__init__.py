"""Heads of a classifier by the name that results, tables and `--head` use.

A new head is one file, which implements `base.Head`, and one line here.
"""

from flcl.heads.base import Head
from flcl.heads.class_mean import ClassMean
from flcl.heads.linear import Linear

HEADS: dict[str, Head] = {"linear": Linear(), "class_mean": ClassMean()}
