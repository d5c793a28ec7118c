"""FunLoRA on CIFAR-100, 5 tasks of 20 classes (or 10 of 10): the paper's main benchmark.

    flcl train --config=funlora_cifar100 --workdir=runs/cifar100

Add `--config.adapter.layers=40-54` for the smaller adapters of the paper,
`--config.judge.oversample=5` for its oversampling row, or
`--config.stream.class_order=seed:1993` for a second class order.

Arguments: `:smoke`, `:baseline=joint` (or another word of README.md), `:family=shift`
(or another family, with its own learning rate), `:tasks=10`; joined by commas.
"""

from configs import common
from flcl.settings import bridge

# Optimiser steps of a later task (ours, F8), in proportion to its number of classes.
_PHASE2_STEPS = {"5": 50_000, "10": 25_000}


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg, tasks=("5", "10"))
    config = bridge.defaults("funlora")
    config.name = "CIFAR-100"

    config.data.source = "tfds:cifar100"  # prepared from the archive in data.manual_dir
    config.data.image_size = 32  # the size of the images
    config.data.channels = 3  # RGB
    config.data.flip = True  # common code

    config.stream.tasks = args.tasks  # 20 classes each in the paper
    config.stream.capacity = 100  # gives all sizes before the data is prepared

    # The defaults of `model` are the network that the paper's parameter counts fix (F6):
    # 128 channels x (1, 2, 2, 2), 2 blocks, attention at 16 pixels, 65 convolutions.
    config.adapter.family = args.family  # stated: cosine with learned frequencies is best

    # The other defaults of `phase1` come from the common code (F8): Adam 2e-4 with 5,000 steps of
    # warm-up, clipping at 1, batch 128, EMA 0.9999, dropout 0.1, 100,000 steps.
    config.phase1.groups = 8  # ours: 8 of the task's classes per batch, 16 images of each

    config.phase2.steps = _PHASE2_STEPS[args.tasks]  # ours (F8)
    config.phase2.groups = 8  # ours, as in phase 1
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 200  # ours (F8): the trunk is frozen, and a short warm-up is safe
    config.phase2.ema_decay = 0.999  # ours (F8): shorter runs need a shorter window
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    # The defaults of `sample` and `judge` are F9 (100 function evaluations) and F10, F11: as many
    # images per class as are real, 500.
    return common.finish(config, args)
