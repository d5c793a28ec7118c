"""FunLoRA on your own images, any number of classes: two new classes in every task.

    flcl train --config=funlora_images --config.data.source=folder:PATH

Add `--workdir=DIR` for the folder of the run. Other sources than folders work, too. Images are
converted to RGB and 32 x 32 pixels. This size needs a GPU.

Arguments: `:small` (16 pixels, minutes on two CPU cores), `:smoke`, `:baseline=finetune` (or
another word of README.md), `:family=shift` (or another family, with its own learning rate),
`:tasks=per:5` (five classes in every task) or `per:1`; joined by commas.
"""

from configs import common
from flcl.settings import bridge

TASKS = ("per:2", "per:1", "per:5")


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg, tasks=TASKS, small=True)
    config = bridge.defaults("funlora")
    config.name = "images"

    config.data.source = "folder:images"  # your folder of images
    config.data.image_size = 32  # the image size of the paper's network for CIFAR
    config.data.channels = 3  # RGB; grey images are converted
    config.data.flip = True  # ours: most pictures have no left and right

    config.stream.tasks = args.tasks  # the last task takes the remaining classes

    config.adapter.family = args.family  # stated: cosine with learned frequencies is best

    config.phase1.steps = 20_000  # ours: a fifth of CIFAR, for a few thousand images
    config.phase1.warmup_steps = 1_000  # ours: the same share of the steps as on CIFAR
    config.phase1.ema_decay = 0.999  # ours: a window of 1,000 steps

    config.phase2.steps = 5_000  # ours: the same share as on CIFAR
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 200  # ours
    config.phase2.ema_decay = 0.999  # ours
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    config.judge.epochs = 50.0  # ours: few images need fewer epochs than CIFAR
    if args.tasks == "per:1":
        for phase in (config.phase1, config.phase2):
            phase.groups = 1  # a batch cannot have more classes than its task
    if args.small:
        _small(config)
    return common.finish(config, args)


def _small(config):
    """What two CPU cores can do in minutes: all of it ours."""
    common.small(config)
    config.name = "images at 16 pixels"
    config.model.width = 32  # a sixteenth of the work
    config.model.multipliers = (1, 2)  # 16 and 8 pixels
    config.phase1.steps = 1_500
    config.phase2.steps = 400
    config.judge.images_per_class = 200  # enough for a judge this small
