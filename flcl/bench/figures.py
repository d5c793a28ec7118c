"""The results of benchmarks: ratios to a reference in the same run, and their bars."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

BARS: dict[str, float] = {
    "phase1_step": 1.10,
    "phase2_step": 0.60,
    "sampler": 1.02,
    "torchcfm_step": 1.0,
    "torchcfm_sampler": 0.9,
    "vit_step": 0.70,
    "vit_step/bytes": 0.5,
    "loader": 1.03,
    "last_task": 1.05,
    "last_task/bytes": 1.0,
    "bytes_per_class": 1.1,
}
"""The largest ratio that is good enough, by name of a figure or by its part before the `/`."""

BARS_OF_BACKEND: dict[str, dict[str, float]] = {"gpu": {"torchcfm_step": 0.9}}
"""Bars that are lower on a backend."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured ratio.

    Attributes:
      name: `item` or `item/case`.
      ratio: median over the rounds of this / reference.
      ratio_low: first and
      ratio_high: third quartile of the rounds' ratios.
      median_seconds: None if the figure is counted and not timed.
      reference_seconds: the same for the reference.
      mfu: model FLOPs utilisation, None if the peak of the device is unknown.
      steps_per_second: of a train step.
      peak_bytes: the most memory that a step needs, see `bench.memory`.
      memory_ratio: device bytes of the compiled program / those of the reference.
      note: a note for the reader.
    """

    name: str
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    backend: str
    median_seconds: float | None = None
    reference_seconds: float | None = None
    images_per_second: float | None = None
    function_evaluations: int | None = None
    mfu: float | None = None
    steps_per_second: float | None = None
    peak_bytes: int | None = None
    memory_ratio: float | None = None
    note: str = ""

    @property
    def bar(self) -> float | None:
        """The largest ratio that is good enough; None if there is no bar."""
        bars = BARS | BARS_OF_BACKEND.get(self.backend, {})
        return bars.get(self.name, bars.get(self.name.partition("/")[0]))

    @property
    def spread(self) -> float:
        """Distance of the quartiles, relative to the ratio."""
        return (self.ratio_high - self.ratio_low) / self.ratio

    @property
    def missed(self) -> bool:
        """Whether there is a bar and the ratio is above it."""
        return self.bar is not None and self.ratio > self.bar

    def as_dict(self) -> dict:
        """JSON values; entries that do not apply are left out, except bar and seconds."""
        values = dataclasses.asdict(self) | {"bar": self.bar, "spread": self.spread}
        kept = ("bar", "median_seconds", "reference_seconds")
        return {k: v for k, v in values.items() if k in kept or v not in (None, "")}


def timed(name: str, seconds: Sequence[float], reference: Sequence[float], **more) -> Figure:
    """The figure of one call against another, from the seconds of each round."""
    low, ratio, high = np.quantile(np.divide(seconds, reference), [0.25, 0.5, 0.75]).tolist()
    return Figure(
        name=name,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        rounds=len(seconds),
        backend=jax.default_backend(),
        median_seconds=float(np.median(seconds)),
        reference_seconds=float(np.median(reference)),
        **more,
    )


def counted(name: str, value: float, reference: float, note: str = "", **more) -> Figure:
    """The figure of a value that is the same in every round, such as bytes."""
    ratio = value / reference
    return Figure(
        name=name,
        ratio=ratio,
        ratio_low=ratio,
        ratio_high=ratio,
        rounds=1,
        backend=jax.default_backend(),
        note=note,
        **more,
    )
