"""Keys of the judge, and of what is measured of generated images."""

import dataclasses
from typing import Literal

from flcl.settings.keys import (
    above,
    above_up_to,
    at_least,
    from_to,
    key,
)
from flcl.settings.shared import BATCH, EPOCHS

METRICS = ("fd", "kd", "prdc", "copies")
"""What can be measured of generated images beside real ones; see `judge.metrics`."""

FEATURES = ("judge", "vit:FILE", "inception:FILE")
"""The forms of `judge.features`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """The ResNet-18 that is trained on generated images only and tested on real images."""

    width: int = key(64, "channels of the first stage", at_least(1, 16_384))
    stages: int = key(4, "stages of two blocks; 4 = ResNet-18", from_to(1, 4))
    epochs: float = key(200.0, "passes over the images; oversampling does not add steps", EPOCHS)
    batch_size: int = key(256, "global batch", BATCH)
    learning_rate: float = key(0.1, "of SGD with momentum 0.9 and cosine decay", above(0))
    weight_decay: float = key(5e-4, "of convolution and dense kernels", at_least(0))
    crop: int = key(4, "padding in pixels of the random crop; 0 = off", at_least(0))
    flip: bool = key(True, "random horizontal flip")
    images_per_class: int = key(
        0, "generated images per class; 0 = as many as real ones", at_least(0, 1_000_000)
    )
    oversample: float = key(
        1.0, "generated images per class relative to images_per_class", above_up_to(0, 1000)
    )
    current_task: Literal["synthetic", "real"] = key(
        "synthetic", "the judge's images of the newest task; never mix both kinds in one table"
    )
    repeats: int = key(
        1, "judges per task, with different seeds; the accuracy is their mean", at_least(1, 1000)
    )
    metrics: tuple[str, ...] = key(
        METRICS,
        "samples beside real images: some of fd (Frechet distance), kd (kernel distance), prdc "
        "(precision, recall, density, coverage), copies; () = none",
    )
    features: str = key(
        "judge",
        "of these metrics: judge (trained on real images), vit:FILE (weights as in model.weights) "
        "or inception:FILE (weights of torch-fidelity)",
    )

    def check(self) -> None:
        """Raises `ValueError` for names that are no metrics, and for features of another form."""
        if set(self.metrics) - {*METRICS} or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(
                f"judge.metrics={self.metrics}: accepted are some of {', '.join(METRICS)}, each "
                "once; () for none"
            )
        kind, _, file = self.features.partition(":")
        if self.features != "judge" and (kind not in ("vit", "inception") or not file):
            raise ValueError(
                f"judge.features={self.features!r}: accepted are {', '.join(FEATURES)}, with a "
                "file of weights after the colon"
            )
