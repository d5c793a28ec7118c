"""The common part of the generators' configs: arguments, baselines, families, the smoke run.

The comments in the config files say where a value comes from:
  stated       the FunLoRA paper prints it
  common code  public flow-matching code for the same network uses it; the paper does not say
  ours         our choice: nothing is known, or our own runs showed it (F1-F13 in README.md)
"""

import dataclasses
import typing
from collections.abc import Sequence

import ml_collections

from configs import arguments
from flcl import settings
from flcl.settings import bridge
from flcl.settings.config_file import ArgumentError

FAMILIES = typing.get_args(settings.FamilyName)
RIVALS = ("ddgr", "guide", "jdcl")
UNPROTECTED = ("finetune", "generative_replay", *RIVALS)
BASELINES = ("joint", *UNPROTECTED, "vanilla_add", "vanilla_mult")

# Adam's learning rate of the factors in phase 2 (ours): the best of 1e-3 .. 1e-1 for each family on
# the digits, 150 steps per task. One shared rate would compare step sizes, not families: shift
# spreads every entry over p places at 1/p of the weight, power starts with a slope of (p + 1) / 2.
FACTOR_LEARNING_RATE = {
    "vanilla_add": 3e-2,
    "vanilla_mult": 1e-1,
    "shift": 1e-1,
    "power": 1e-2,
    "cosine": 3e-2,
    "cosine_learnable": 3e-2,
}


@dataclasses.dataclass(frozen=True)
class Args:
    """The parsed words after the colon of `--config=FILE:ARG`."""

    smoke: bool
    small: bool
    baseline: str
    family: str
    sampler: str
    tasks: str
    minutes: float


def parse_arg(arg: str, *, tasks: Sequence[str] = ("5", "2"), small: bool = False) -> Args:
    """Parses `smoke,baseline=joint,family=shift,tasks=10,minutes=5`; no word is required.

    `tasks` are the accepted numbers of tasks, the default first; `small` says whether the config
    has a small variant. Raises `ArgumentError` for an unknown or repeated word, an unknown value
    and words that exclude each other.
    """
    accepted = {"baseline": BASELINES, "family": FAMILIES, "tasks": tuple(tasks)}
    accepted["sampler"] = ("heun",)
    flags = ("smoke", "small") if small else ("smoke",)
    words = arguments.words(arg, flags, accepted, ("minutes",))
    baseline, family = words.get("baseline", ""), words.get("family", "")
    if baseline in UNPROTECTED and family:
        raise ArgumentError(f"config argument family={family}: {baseline} has no class factors")
    if baseline in FAMILIES:
        if family not in ("", baseline):
            raise ArgumentError(
                f"config argument family={family}: baseline={baseline} is a family too"
            )
        baseline, family = "", baseline
    return Args(
        smoke="smoke" in words,
        small="small" in words,
        baseline=baseline,
        family=family or "cosine_learnable",
        sampler=words.get("sampler", ""),
        tasks=words.get("tasks", tasks[0]),
        minutes=float(words.get("minutes", 0)),
    )


def small(config: ml_collections.ConfigDict) -> None:
    """What small variants share: 16 pixels, a small network, short tasks and a small judge."""
    config.data.image_size = 16
    config.model.update(blocks=1, attention=(), head_channels=16)  # the middle block attends anyway
    config.adapter.learning_rate = 2e-3  # as the trunk in phase 1
    for phase in (config.phase1, config.phase2):
        phase.update(batch_size=64, dropout=0.0)  # not enough steps to overfit
    # Short runs need larger steps and a shorter average.
    config.phase1.update(learning_rate=2e-3, warmup_steps=50, ema_decay=0.99)
    config.phase2.update(warmup_steps=10, ema_decay=0.95)
    config.sample.num_steps = 10  # 20 function evaluations
    config.judge.update(width=16, epochs=10.0, batch_size=64, learning_rate=0.05, crop=1)
    config.runtime.save_every = 200


def finish(
    config: ml_collections.ConfigDict, args: Args, heun: int = 50
) -> ml_collections.ConfigDict:
    """Changes a complete FunLoRA config as the arguments say, and completes its title.

    heun: steps of `sampler=heun`.
    """
    title = f"{args.baseline} " if args.baseline else ""
    if args.baseline in UNPROTECTED:
        config = _unprotected(config, args.baseline)
    else:
        title += args.family
        if args.baseline == "joint":
            _joint(config)
    if args.sampler:
        config.sample.update(solver=args.sampler, num_steps=heun)
        title += f" {args.sampler}"
    config.name = f"{config.name}: {title.strip()}"
    if args.smoke:
        _smoke(config)
    if args.minutes:
        _short(config, args)
    return config


def _short(config: ml_collections.ConfigDict, args: Args) -> None:
    """A run of some minutes: as many of its steps as fit, chosen when it begins.

    Sixteen evaluations of the network draw an image, unless a word names the sampler: on the digits
    more have gained nothing.
    """
    config.runtime.minutes = args.minutes
    # The steps that fit may be few, and the warm-up must not take most of them.
    config.phase1.warmup_steps = min(config.phase1.warmup_steps, 500)  # ours
    config.phase2.warmup_steps = min(config.phase2.warmup_steps, 50)  # ours
    if not args.sampler and config.sample.solver != "euler" and config.sample.num_steps > 8:
        config.sample.update(solver="midpoint", num_steps=8)  # ours


def _joint(config: ml_collections.ConfigDict) -> None:
    """All classes at once, with as many steps as the whole sequence."""
    if not config.stream.tasks.isdecimal():
        raise ArgumentError(
            "config argument baseline=joint: the number of steps depends on the number of tasks, "
            f"which {config.stream.tasks} leaves open; use a config that names it"
        )
    config.stream.joint = True
    config.phase1.steps += (int(config.stream.tasks) - 1) * config.phase2.steps
    config.phase1.groups = 8  # ours: two classes per batch give a noisy gradient for ten or more


def _unprotected(config: ml_collections.ConfigDict, method: str) -> ml_collections.ConfigDict:
    """The same network and steps; every task trains every parameter, at the rate of phase 1."""
    config = bridge.switch(config, method)
    config.phase2.learning_rate = config.phase1.learning_rate
    config.phase2.dropout = config.phase1.dropout
    if "replay" in config:
        config.phase2.groups = 2 * config.phase2.groups  # ours: new and old classes in every batch
    if "guide" in config:  # ours: the classifier that guides has the size of the judge
        config.guide.update(width=config.judge.width, stages=config.judge.stages)
    if method == "guide" and config.phase2.steps < 1000:
        config.guide.every = 2  # ours: a tenth of so few steps teaches a classifier nothing
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Runs the same code in seconds: small embedded images, a tiny network, few steps.

    Channels, flip, attention, method and family are those of the real config. The results mean
    nothing.
    """
    config.name = f"{config.name} (smoke)"
    config.data.source = "fashion16" if config.data.channels == 3 else "digits"
    config.data.image_size = 8
    config.stream.tasks = "5,5"
    config.stream.capacity = 0
    config.model.update(width=16, multipliers=(1,), blocks=1, head_channels=16)
    config.model.attention = (8,) if config.model.attention else ()
    for phase in (config.phase1, config.phase2):
        phase.update(steps=4, batch_size=16, groups=2, warmup_steps=1)
        phase.update(learning_rate=1e-3, ema_decay=0.9, dropout=0.1)
    config.sample.update(solver="euler", num_steps=2, chunk=16)
    config.judge.update(width=8, stages=1, epochs=1.0, batch_size=32, images_per_class=16, crop=1)
    config.judge.update(learning_rate=0.05, flip=config.data.flip)
    config.runtime.update(save_every=2, log_every=2)
    if "adapter" in config:
        # A window, as in the paper, of few functions: with every layer and function, compiling
        # takes most of a minute.
        config.adapter.update(layers="2-5", functions=2, learning_rate=1e-3)
    if "replay" in config:
        config.replay.images_per_class = 16
    if "guide" in config:
        config.guide.update(width=8, stages=1)
    if "every" in config.get("guide", {}):
        config.guide.every = 2
    if "jdcl" in config:
        config.jdcl.hidden = 16
