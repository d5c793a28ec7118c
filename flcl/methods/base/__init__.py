"""The contract between the training loop and a continual method.

A method is a set of pure functions around one pytree, the *memory*: everything that is learned so
far. For each task the method returns two separate trees, `trainable` and `frozen`. Gradients,
clipping, optimiser state and averaging use only `trainable`. Labels, rows, masks and ranks are
traced arrays, so one step is compiled per phase, however many tasks follow. A method has no state:
runs of equal settings in a process share one object and its programs (`methods.shared`).
"""

from flcl.methods.base.classifier import Classifier, Labelled, Moved, Preliminary
from flcl.methods.base.generator import STRAIGHTENING, Generator
from flcl.methods.base.method import (
    Generate,
    Memory,
    Method,
    Resolved,
    Score,
    Tree,
    Velocity,
    bytes_of,
)

__all__ = [
    "STRAIGHTENING",
    "Classifier",
    "Generate",
    "Generator",
    "Labelled",
    "Memory",
    "Method",
    "Moved",
    "Preliminary",
    "Resolved",
    "Score",
    "Tree",
    "Velocity",
    "bytes_of",
]
