"""Which values fit each key and each other: everything that needs no data and no devices to know.

Types and literals are checked in `bridge`; class orders, layers and devices where they are used.
"""

import dataclasses
from collections.abc import Iterator

from flcl import settings

SITES = ("q", "k", "v", "proj", "fc1", "fc2")
"""Linear maps of a transformer block that an adapter can sit on."""

# (class of the section, keys, accepted, test)
_RANGES = (
    (settings.Data, "image_size", "at least 1", lambda v: v >= 1),
    (settings.Data, "test_fraction", "between 0 and 1", lambda v: 0 < v < 1),
    (settings.Data, "memory_gib train_per_class test_per_class", "0 or more", lambda v: v >= 0),
    (settings.Stream, "capacity", "0 or more", lambda v: v >= 0),
    (settings.UNet, "width blocks head_channels", "at least 1", lambda v: v >= 1),
    (
        settings.UNet,
        "multipliers",
        "one or more sizes, each at least 1",
        lambda v: v and min(v) > 0,
    ),
    (settings.UNet, "attention", "sizes of at least 1, or ()", lambda v: min(v, default=1) >= 1),
    (settings.Adapter, "functions", "at least 1", lambda v: v >= 1),
    (settings.Adapter, "sigma learning_rate", "above 0", lambda v: v > 0),
    (settings.Phase, "steps batch_size groups", "at least 1", lambda v: v >= 1),
    (settings.Phase, "learning_rate clip_norm", "above 0", lambda v: v > 0),
    (settings.Phase, "warmup_steps", "0 or more", lambda v: v >= 0),
    (settings.Phase, "ema_decay dropout", "at least 0 and below 1", lambda v: 0 <= v < 1),
    (settings.Sample, "num_steps chunk", "at least 1", lambda v: v >= 1),
    (settings.Sample, "rtol atol", "above 0", lambda v: v > 0),
    (settings.Judge, "width batch_size repeats", "at least 1", lambda v: v >= 1),
    (settings.Judge, "epochs learning_rate oversample", "above 0", lambda v: v > 0),
    (settings.Judge, "weight_decay crop images_per_class", "0 or more", lambda v: v >= 0),
    (settings.Replay, "images_per_class", "0 or more", lambda v: v >= 0),
    (settings.ViT, "layer_norm_eps", "above 0", lambda v: v > 0),
    (settings.Train, "batch_size eval_batch_size", "at least 1", lambda v: v >= 1),
    (
        settings.Train,
        "epochs learning_rate head_learning_rate clip_norm",
        "above 0",
        lambda v: v > 0,
    ),
    (settings.Train, "warmup", "at least 0 and below 1", lambda v: 0 <= v < 1),
    (settings.Train, "min_crop", "above 0 and at most 1", lambda v: 0 < v <= 1),
    (settings.LowRank, "rank", "at least 1", lambda v: v >= 1),
    (settings.LowRank, "scale", "above 0", lambda v: v > 0),
    (settings.FLoRA, "later_factor", "above 0", lambda v: v > 0),
    (settings.RankSelection, "candidates", "one or more ranks", lambda v: v and min(v) > 0),
    (
        settings.RankSelection,
        "temperature final_temperature learning_rate probe_epochs",
        "above 0",
        lambda v: v > 0,
    ),
    (settings.RankSelection, "schedule holdout", "above 0 and below 1", lambda v: 0 < v < 1),
    (settings.RankSelection, "penalty", "0 or more", lambda v: v >= 0),
    (settings.Prompt, "tokens", "0 or more", lambda v: v >= 0),
    (settings.Prompt, "sigma", "above 0", lambda v: v > 0),
    (settings.Prompt, "later_factor", "0 or more", lambda v: v >= 0),
    (
        settings.Runtime,
        "fsdp save_every log_every steps_per_call threads prefetch",
        "at least 1",
        lambda v: v >= 1,
    ),
)


def check(run: settings.Run) -> settings.Run:
    """`run` itself; raises `ValueError` with the dotted key, its value and what is accepted."""
    if not 0 <= run.seed < 2**32:
        raise ValueError(f"seed={run.seed}: must be 0 or more and below 2**32")
    for name, value in _sections(run):
        _check_ranges(name, value)
    _check_stream(run)
    if isinstance(run, settings.GeneratorRun):
        _check_unet(run)
        for name in ("phase1", "phase2"):
            _check_phase(name, getattr(run, name))
    else:
        _check_vit(run)
    if isinstance(run, settings.LoRARun | settings.FMLoRARun):
        _check_low_rank(run)
    if isinstance(run, settings.FMLoRARun):
        fixed_rank(run)
    return run


def fixed_rank(run: settings.FMLoRARun) -> int | None:
    """R of `rank.selector=fixed:R` or `full`, None for a selector that chooses.

    Raises `ValueError` for another selector and for a rank above `lora.rank`.
    """
    chosen, most = run.rank, run.lora.rank
    kind, _, number = chosen.selector.partition(":")
    if kind in ("centred", "literal") and not number:
        _check_candidates(run)
        return None
    if chosen.selector == "full":
        return most
    if kind != "fixed" or not number.isdecimal():
        raise ValueError(
            f"rank.selector={chosen.selector!r}: accepted are centred, literal, full, fixed:R"
        )
    if not 1 <= int(number) <= most:
        raise ValueError(f"rank.selector={chosen.selector!r}: R must be 1 to lora.rank={most}")
    return int(number)


def _check_candidates(run: settings.FMLoRARun) -> None:
    chosen, most = run.rank, run.lora.rank
    high = [r for r in chosen.candidates if r > most]
    if high:
        raise ValueError(
            f"rank.candidates={chosen.candidates}: {high[0]} exceeds lora.rank={most}, the columns "
            "that the shared subspace has"
        )
    if list(chosen.candidates) != sorted(set(chosen.candidates)):
        raise ValueError(
            f"rank.candidates={chosen.candidates}: must ascend, each rank once, such as 2,4,6"
        )
    if chosen.final_temperature > chosen.temperature:
        raise ValueError(
            f"rank.final_temperature={chosen.final_temperature}: exceeds "
            f"rank.temperature={chosen.temperature}; the choice sharpens, so it must fall"
        )


def _sections(run: settings.Run) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if dataclasses.is_dataclass(value):
            yield field.name, value


def _check_ranges(name: str, section) -> None:
    for kind, keys, accepted, fits in _RANGES:
        if not isinstance(section, kind):
            continue
        for key in keys.split():
            value = getattr(section, key)
            if not fits(value):
                raise ValueError(f"{name}.{key}={value!r}: must be {accepted}")


def _check_stream(run: settings.Run) -> None:
    stream = run.stream
    if stream.scenario == "dil" and isinstance(run, settings.GeneratorRun):
        raise ValueError("stream.scenario='dil': a generator learns new classes; accepted is cil")
    if stream.scenario == "cil" and stream.domain_order != "natural":
        raise ValueError(
            f"stream.domain_order={stream.domain_order!r}: read only with stream.scenario=dil"
        )


def _check_unet(run: settings.GeneratorRun) -> None:
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


def _check_vit(run: settings.ClassifierRun) -> None:
    patch = settings.vit_sizes(run.model.variant).patch
    if run.data.image_size % patch:
        raise ValueError(
            f"data.image_size={run.data.image_size}: must be a multiple of {patch}, the patch of "
            f"model.variant={run.model.variant!r}"
        )

    if run.model.weights == "random" and run.model.sha256:
        raise ValueError(
            f"model.sha256={run.model.sha256!r}: model.weights='random' reads no file to compare"
        )
    if run.method == "vit_finetune" and run.model.trunk_dtype != "float32":
        raise ValueError(
            f"model.trunk_dtype={run.model.trunk_dtype!r}: a trunk that trains is stored in float32"
        )


def _check_low_rank(run: settings.LoRARun | settings.FMLoRARun) -> None:
    sites, sizes = run.lora.sites, settings.vit_sizes(run.model.variant)
    unknown = [site for site in sites if site not in SITES]
    if unknown or not sites or len(set(sites)) != len(sites):
        raise ValueError(
            f"lora.sites={sites}: accepted are one or more of {', '.join(SITES)}, each once"
        )
    if run.lora.rank > sizes.width:
        raise ValueError(
            f"lora.rank={run.lora.rank}: exceeds the width {sizes.width} of "
            f"model.variant={run.model.variant!r}"
        )
    vit_blocks(run.lora.blocks, sizes.depth)


def vit_blocks(text: str, depth: int) -> tuple[int, ...]:
    """Indices of the blocks that `lora.blocks` names; raises `ValueError` for one that is none."""
    try:
        if text == "all":
            return tuple(range(depth))
        first, dash, last = text.partition("-")
        chosen = range(int(first), int(last) + 1) if dash else map(int, text.split(","))
        found = tuple(chosen)
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or not set(found) <= set(range(depth)):
        raise ValueError(
            f"lora.blocks={text!r}: accepted are all, a range such as 0-5 or a list such as 0,3,7 "
            f"of the blocks 0 to {depth - 1}"
        )
    return tuple(sorted(found))
