"""FunLoRA on CIFAR-10, 5 tasks of 2 classes, at the paper's size: the 35.7 M parameter U-Net.

    flcl train --config=funlora_cifar10 --workdir=runs/cifar10

`--config.data.source=folder:.data/cifar10` reads image files instead of the official archive.

Arguments: `:smoke`, `:baseline=joint` (or another word of README.md), `:family=shift`
(or another family, with its own learning rate), `:tasks=2`; `:minutes=10` (as many steps as fit);
joined by commas.
"""

from configs import common
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg)
    config = bridge.defaults("funlora")
    config.name = "CIFAR-10"

    config.data.source = "tfds:cifar10"  # prepared from the archive in data.manual_dir
    config.data.image_size = 32  # the size of the images
    config.data.channels = 3  # RGB
    config.data.flip = True  # common code

    config.stream.tasks = args.tasks  # ours: the split of the peers; the paper does not say
    config.stream.capacity = 10  # gives all sizes before the data is prepared

    # The defaults of `model` are the network that the paper's parameter counts fix (F6):
    # 128 channels x (1, 2, 2, 2), 2 blocks, attention at 16 pixels, 65 convolutions.
    config.adapter.family = args.family  # stated: cosine with learned frequencies is best

    # The defaults of `phase1` come from the common code (F8): Adam 2e-4 with 5,000 warm-up steps,
    # clipping at 1, batch 128, EMA 0.9999, dropout 0.1. The peers also use 100,000 steps.
    config.phase2.steps = 20_000  # ours (F8): 2 classes per task
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 200  # ours (F8): the trunk is frozen, and a short warm-up is safe
    config.phase2.ema_decay = 0.999  # ours (F8): shorter runs need a shorter window
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    # The defaults of `sample` and `judge` are F9 (100 function evaluations) and F10, F11.
    return common.finish(config, args)
