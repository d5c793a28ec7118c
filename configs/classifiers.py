"""The common part of the classifiers' configs: arguments, baselines, ablations, the smoke run.

The comments in the config files say where a value comes from:
  stated  the FM-LoRA paper prints it
  peers   the paper or public code of SD-LoRA or InfLoRA uses it; FM-LoRA does not say
  ours    our choice: nothing is known, or our own runs showed it (M1-M12 in README.md)
"""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections

from configs import arguments
from flcl.settings import bridge
from flcl.settings.config_file import ArgumentError

# `baseline=` -> method. `joint` is fmlora on all tasks at once.
METHODS = {
    "frozen": "frozen",
    "class_mean": "class_mean",
    "ranpac": "frozen",
    "linear_probe": "linear_probe",
    "first_session": "first_session",
    "ranpac_adapted": "first_session",
    "finetune": "vit_finetune",
    "slca": "slca",
    "lora_sequential": "lora_sequential",
    "sd_lora": "sd_lora",
    "inflora": "inflora",
    "rsiat": "rsiat",
}
BASELINES = (*METHODS, "joint")

# Peers: RanPAC's head. The projection of M = 10,000 features needs 400 MB for its statistics.
RANPAC = {
    "head": "ridge",
    "ridge.width": 10_000,
    "ridge.rule": "split",
    "ridge.centred": False,
    "ridge.unit": False,
}
# Keys of a baseline that have their published values, whatever FM-LoRA's config says.
KEYS = {
    "ranpac": RANPAC,
    "ranpac_adapted": RANPAC,
    "slca": {
        "drift.correction": "none",  # peers
        "train.optimizer": "sgd",  # peers
        "train.learning_rate": 1e-4,  # peers: a hundredth of the head's
        "train.head_learning_rate": 1e-2,  # peers
    },
    "rsiat": {
        "train.optimizer": "sgd",  # peers
        "train.learning_rate": 6.7e-3,  # peers: for ImageNet-R
        "train.head_learning_rate": 6.7e-3,  # peers
    },
}
# FM-LoRA as the paper describes it: a prompt (peers: 10 tokens), and ranks by the complexity.
PAPER = {"prompt.tokens": 10, "prompt.init": "normal", "rank.selector": "centred"}
ABLATIONS = {"no_drs": {"rank.selector": "full"}, "no_dmp": {"prompt.tokens": 0}}
FORMS = ("paper", *ABLATIONS)
SMOKE_WIDTH = 64  # random features of RanPAC in a smoke run

# The ViT-B/16 of SD-LoRA's code: trained on ImageNet-21K, then on ImageNet-1K (M9).
B16 = "hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k"

FINETUNE_SHARE = 0.1  # ours: share of the adapters' learning rate, because every weight changes


@dataclasses.dataclass(frozen=True)
class Args:
    """The parsed words after the colon of `--config=FILE:ARG`."""

    smoke: bool
    small: bool
    baseline: str
    forms: tuple[str, ...]
    choices: Mapping[str, str]
    minutes: float


def parse_arg(arg: str, *, small: bool = False, **choices: Sequence[str]) -> Args:
    """Parses `smoke,baseline=sd_lora,tasks=10` or `no_drs,no_dmp`; no word is required.

    `paper`, `no_drs` and `no_dmp` are the forms of FM-LoRA: as in the paper, or without a part.

    small: whether the config has a small variant. choices: other words of this config with their
    accepted values, the default first, such as `tasks=("10", "5")`. Raises `ArgumentError` for an
    unknown or repeated word, for an unknown value, and for a form of FM-LoRA with another method.
    """
    flags = ("smoke", "small", *FORMS) if small else ("smoke", *FORMS)
    words = arguments.words(arg, flags, {"baseline": BASELINES, **choices}, ("minutes",))
    baseline = words.get("baseline", "")
    forms = tuple(each for each in FORMS if each in words)
    if forms and baseline in METHODS:
        raise ArgumentError(f"config argument {forms[0]}: {baseline} is another method")
    if "no_drs" in forms and baseline == "joint":
        raise ArgumentError("config argument no_drs: joint has one task, which has the full rank")
    return Args(
        smoke="smoke" in words,
        small="small" in words,
        baseline=baseline,
        forms=forms,
        choices={name: words.get(name, values[0]) for name, values in choices.items()},
        minutes=float(words.get("minutes", 0)),
    )


def finish(config: ml_collections.ConfigDict, args: Args) -> ml_collections.ConfigDict:
    """Changes a complete FM-LoRA config as the arguments say, and completes its title."""
    title = [args.baseline or "fmlora", *(each.replace("_", " ") for each in args.forms)]
    if args.smoke:
        _smoke(config)  # first, because a baseline has fewer keys
    if args.baseline in METHODS:
        config = bridge.switch(config, METHODS[args.baseline])
        config.update_from_flattened_dict(KEYS.get(args.baseline, {}))
    if args.smoke and config.ridge.width:
        config.ridge.width = SMOKE_WIDTH
    if args.baseline == "finetune":
        config.train.learning_rate *= FINETUNE_SHARE
    if args.baseline == "joint":
        config.stream.joint = True  # as many epochs over all images: the steps of the sequence
    if args.forms:
        config.update_from_flattened_dict(PAPER)
    for each in args.forms:
        config.update_from_flattened_dict(ABLATIONS.get(each, {}))
    config.name = f"{config.name}: {', '.join(title)}" + (" (smoke)" if args.smoke else "")
    config.runtime.minutes = args.minutes
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Runs the same code in seconds: embedded digits, the embedded tiny ViT, few steps.

    Method, adapters, prompt and flip are those of the real config. There are always two tasks of
    new classes, because no embedded data has domains. The results mean nothing.
    """
    config.data.update(source="digits", image_size=16, train_per_class=8, test_per_class=4)
    config.stream.update(scenario="cil", domain_order="natural", class_order="natural")
    config.stream.update(tasks="5,5", capacity=0)
    config.model.update(
        variant="Nano/4", weights="tiny", sha256="", layer_scale=False, normalize="weights"
    )
    config.model.update(dtype="float32", trunk_dtype="float32")
    config.train.update(epochs=1.0, batch_size=16, eval_batch_size=16, min_crop=0.6)
    config.train.update(learning_rate=1e-4, head_learning_rate=1e-2)
    config.runtime.update(save_every=2, log_every=2)
