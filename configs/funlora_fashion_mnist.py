"""FunLoRA on Fashion-MNIST at 28x28, 5 tasks of 2 classes: one GPU, or slowly on a laptop.

    flcl train --config=funlora_fashion_mnist --workdir=runs/fashion_mnist

Arguments: `:smoke`, `:small` (16 pixels, minutes on two CPU cores), `:baseline=joint` (or another
word of README.md), `:family=shift` (or another family, with its own learning rate), `:tasks=2`;
joined by commas.
"""

from configs import common
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg, small=True)
    config = bridge.defaults("funlora")
    config.name = "Fashion-MNIST"

    config.data.source = "tfds:fashion_mnist"  # prepared from the files in data.manual_dir
    config.data.image_size = 28  # the size of the images
    config.data.channels = 1  # grey
    config.data.flip = False  # ours: all shoes point the same way

    config.stream.tasks = args.tasks  # 2 classes each
    config.stream.capacity = 10  # gives all sizes before the data is prepared

    config.model.width = 64  # ours: half of the CIFAR network
    config.model.multipliers = (1, 2, 2)  # ours: 28, 14 and 7 pixels
    config.model.attention = (14,)  # ours: the level nearest to the 16 pixels of CIFAR

    config.adapter.family = args.family  # stated: cosine with learned frequencies is best

    config.phase1.steps = 20_000  # ours: grey images need fewer than CIFAR
    config.phase1.warmup_steps = 1_000  # ours: the same share of the steps as on CIFAR
    config.phase1.ema_decay = 0.999  # ours: a window of 1,000 steps

    config.phase2.steps = 5_000  # ours: the same share as on CIFAR
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 200  # ours
    config.phase2.ema_decay = 0.999  # ours
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    config.judge.epochs = 30.0  # ours: grey images need fewer than CIFAR
    config.judge.crop = 2  # ours: clothes fill their image
    if args.small:
        _small(config)
    return common.finish(config, args)


def _small(config):
    """What two CPU cores can do in minutes: all of it ours."""
    common.small(config)
    config.name = "Fashion-MNIST at 16 pixels"
    config.model.width = 16  # a sixteenth of the work
    config.model.multipliers = (1, 2, 2)  # 16, 8 and 4 pixels
    config.phase1.steps = 800
    config.phase2.steps = 150
    config.judge.batch_size = 128
    config.judge.flip = False
    config.judge.images_per_class = 300  # of the 6,000 that a class really has
