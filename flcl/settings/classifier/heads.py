"""Keys of the heads of a classifier, of the correction of drift, and of samples as memory."""

import dataclasses
from typing import Literal

from flcl.settings.keys import above, at_least, between, from_to, from_to_below, key

HEADS = ("linear", "class_mean", "lda", "ridge", "gaussian")
"""The heads by name; `linear` is trained, the others are solved from statistics."""

HeadName = Literal["linear", "class_mean", "lda", "ridge", "gaussian"]
SolvedHead = Literal["class_mean", "lda", "ridge", "gaussian"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """The heads of a run."""

    fit: tuple[str, ...] = key(
        ("linear", "class_mean", "lda", "ridge"),
        "heads that are shown side by side: some of linear, class_mean, lda, ridge, gaussian",
    )
    means: Literal["auto", "class", "domain"] = key(
        "auto",
        "with domains: one mean per class, or one per class and domain; auto: what answers more "
        "held-out training images right",
    )
    shrinkage: float = key(
        0.3, "share of the shared covariance that is replaced by a multiple of I", from_to(0, 1)
    )
    holdout: float = key(
        0.2,
        "share of a task's training images that decides temperatures and means; then they are "
        "added, too; 0 = none",
        from_to_below(0, 1),
    )

    def check(self) -> None:
        """Raises `ValueError` for names that are no heads."""
        if set(self.fit) - {*HEADS} or len(set(self.fit)) < len(self.fit):
            raise ValueError(
                f"heads.fit={self.fit}: accepted are some of {', '.join(HEADS)}, each once"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenHeads(Heads):
    """The same without a trained head."""

    fit: tuple[str, ...] = key(
        ("class_mean", "lda", "ridge"),
        "heads that are shown side by side: some of class_mean, lda, ridge, gaussian",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ridge:
    """Ridge regression, and the random features of RanPAC."""

    width: int = key(
        0, "M, random ReLU features; 0 = the features themselves; RanPAC has 10000", at_least(0)
    )
    penalty: float = key(1.0, "lambda, relative to the mean eigenvalue of X'X (ours)", above(0))
    rule: Literal["relative", "split"] = key(
        "relative",
        "relative: lambda from ridge.penalty; split: the best on a fifth of the newest task's "
        "training images (RanPAC)",
    )
    centred: bool = key(True, "subtract the means of features and labels (ours; RanPAC: False)")
    unit: bool = key(True, "features of length 1 before the random ones (ours; RanPAC: False)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A covariance for each class."""

    rank: int = key(16, "principal axes that are stored for each class", at_least(1, 4096))
    weight: float = key(
        0.2, "weight of a class's own covariance; the rest is the shared one", between(0, 1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How the statistics of old classes follow a network that moves."""

    correction: Literal["auto", "none", "shift", "linear"] = key(
        "auto",
        "shift: the change of the mean; linear: a linear map; auto: linear from 2 d images, shift "
        "below",
    )
    ridge: float = key(0.1, "ridge of the linear map towards the identity (ours)", above(0))
    images: str = key(
        "",
        "images without labels that the map also sees: a data.source, or folder:PATH of pictures; "
        "empty = none",
    )
    sha256: str = key("", "these images must have this SHA-256; empty = any")
    diagnose: bool = key(
        False,
        "also test the head with uncorrected and with true statistics; reads all old images",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Samples of a generator in the place of old images, of which none is stored (ours)."""

    generator: str = key(
        "",
        "workdir of a FunLoRA run that knows the old classes by name; empty = none",
        free=True,
    )
    sha256: str = key("", "the generator must have this SHA-256; empty = any")
    use: Literal["map", "statistics"] = key(
        "map",
        "what samples are for: map, the map of the drift is also fitted on them; statistics, those "
        "of old classes are made anew from them",
    )
    per_class: int = key(100, "samples of each old class after each task", at_least(1, 1_000_000))

    def check(self, drift: Drift, scenario: str) -> None:
        """Raises `ValueError` for a use that `drift` leaves without effect, and for domains."""
        if not self.generator:
            return
        if scenario == "dil":
            raise ValueError(
                f"memory.generator={self.generator!r}: a generator knows classes and no domains; "
                "use stream.scenario=cil"
            )
        if self.use == "map" and drift.correction == "none":
            raise ValueError(
                "memory.use='map': drift.correction='none' fits no map; use memory.use=statistics, "
                "or another drift.correction"
            )
