"""Which values fit each key and each other: everything that needs no data and no devices to know.

Types and literals are checked in `flcl.config`; class orders, layers and devices where they are
used.
"""

import dataclasses
from collections.abc import Iterator

from flcl import settings

# (section, keys, accepted, test); a section covers every run that has it.
_RANGES = (
    ("data", "image_size", "at least 1", lambda v: v >= 1),
    ("data", "test_fraction", "between 0 and 1", lambda v: 0 < v < 1),
    ("data", "memory_gib", "0 or more", lambda v: v >= 0),
    ("stream", "capacity", "0 or more", lambda v: v >= 0),
    ("model", "width blocks head_channels", "at least 1", lambda v: v >= 1),
    ("model", "multipliers", "one or more sizes, each at least 1", lambda v: v and min(v) >= 1),
    ("model", "attention", "sizes of at least 1, or ()", lambda v: min(v, default=1) >= 1),
    ("adapter", "functions", "at least 1", lambda v: v >= 1),
    ("adapter", "sigma learning_rate", "above 0", lambda v: v > 0),
    ("phase", "steps batch_size groups", "at least 1", lambda v: v >= 1),
    ("phase", "learning_rate clip_norm", "above 0", lambda v: v > 0),
    ("phase", "warmup_steps", "0 or more", lambda v: v >= 0),
    ("phase", "ema_decay dropout", "at least 0 and below 1", lambda v: 0 <= v < 1),
    ("sample", "num_steps chunk", "at least 1", lambda v: v >= 1),
    ("sample", "rtol atol", "above 0", lambda v: v > 0),
    ("judge", "width batch_size repeats", "at least 1", lambda v: v >= 1),
    ("judge", "epochs learning_rate oversample", "above 0", lambda v: v > 0),
    ("judge", "weight_decay crop images_per_class", "0 or more", lambda v: v >= 0),
    ("replay", "images_per_class", "0 or more", lambda v: v >= 0),
    ("runtime", "fsdp save_every log_every threads prefetch", "at least 1", lambda v: v >= 1),
)


def check(run: settings.GeneratorRun) -> settings.GeneratorRun:
    """`run` itself; raises `ValueError` with the dotted key, its value and what is accepted."""
    if not 0 <= run.seed < 2**32:
        raise ValueError(f"seed={run.seed}: must be 0 or more and below 2**32")
    for name, value in _sections(run):
        _check_ranges(name, value)
    _check_model(run)
    for name in ("phase1", "phase2"):
        _check_phase(name, getattr(run, name))
    return run


def _sections(run: settings.GeneratorRun) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if dataclasses.is_dataclass(value):
            yield field.name, value


def _check_ranges(name: str, section) -> None:
    for kind, keys, accepted, fits in _RANGES:
        if name.rstrip("12") != kind:
            continue
        for key in keys.split():
            value = getattr(section, key)
            if not fits(value):
                raise ValueError(f"{name}.{key}={value!r}: must be {accepted}")


def _check_model(run: settings.GeneratorRun) -> None:
    size, model = run.data.image_size, run.model
    levels = len(model.multipliers)
    multiple = 2 ** (levels - 1)
    if size % multiple:
        raise ValueError(
            f"data.image_size={size}: must be a multiple of {multiple}, because "
            f"model.multipliers={model.multipliers} halves it {levels - 1} times"
        )
    sizes = [size >> level for level in range(levels)]
    lost = [s for s in model.attention if s not in sizes]
    if lost:
        raise ValueError(
            f"model.attention={model.attention}: no level has size {lost[0]}; with "
            f"data.image_size={size} the sizes are {', '.join(map(str, sizes))} (() for none)"
        )
    attending = [model.multipliers[sizes.index(s)] for s in model.attention]
    for multiplier in [*attending, model.multipliers[-1]]:
        channels = model.width * multiplier
        if channels % min(model.head_channels, channels):
            raise ValueError(
                f"model.head_channels={model.head_channels}: must divide the {channels} channels "
                f"of every level that attends (model.width={model.width} x {multiplier})"
            )


def _check_phase(name: str, phase: settings.Phase) -> None:
    if phase.batch_size % phase.groups:
        raise ValueError(
            f"{name}.batch_size={phase.batch_size}: must be a multiple of "
            f"{name}.groups={phase.groups}, the classes in a batch"
        )
    if phase.warmup_steps > phase.steps:
        raise ValueError(
            f"{name}.warmup_steps={phase.warmup_steps}: exceeds {name}.steps={phase.steps}, so "
            f"the learning rate would never be reached; lower --config.{name}.warmup_steps"
        )
