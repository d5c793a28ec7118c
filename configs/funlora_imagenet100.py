"""FunLoRA on ImageNet-100 at 64x64, 5 tasks of 20 classes (or 10 of 10): a GPU node or a TPU slice.

    flcl train --config=funlora_imagenet100 --workdir=runs/imagenet100

The images are `.data/imagenet100/{train,test}/<class>/*.jpg`. They may have any size and are
resized once. `--config.data.source=folder:PATH` names another folder.

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
    config.name = "ImageNet-100 64x64"

    config.data.source = "folder:.data/imagenet100"  # class folders; the data set has a licence
    config.data.image_size = 64  # ours: the resolution of the peers' 295 M parameter network
    config.data.channels = 3  # RGB
    config.data.flip = True  # common code

    config.stream.tasks = args.tasks  # 20 classes each in the paper
    config.stream.capacity = 100  # gives all sizes before the data is prepared

    # 89,535,619 parameters; with 12.5 K per class about the 90.7 M that the paper prints (F6).
    config.model.multipliers = (1, 2, 3, 4)  # common code at 64 pixels
    config.model.attention = (32, 16, 8)  # common code at 64 pixels

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

    config.sample.chunk = 32  # ours: four times the pixels of CIFAR
    # The other defaults of `sample` and `judge` are F9 (100 function evaluations) and F10, F11: as
    # many images per class as there are real ones, 1,300.
    return common.finish(config, args)
