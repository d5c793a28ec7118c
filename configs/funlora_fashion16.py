"""FunLoRA on the embedded 16x16 Fashion-MNIST, 4 tasks of 2 classes: the quickstart.

    flcl train --config=funlora_fashion16 --workdir=runs/clothes

Bags and ankle boots are not planned: `flcl learn --workdir=runs/clothes --data=fashion16:bag,boot`
teaches them to the finished run. `--config.data.source=fashion16` plans all ten classes, with
`--config.stream.tasks=5`.

Arguments: `:smoke`, `:baseline=joint` (or another word of README.md), `:family=shift`
(or another family, with its own learning rate), `:tasks=2`; joined by commas.
"""

from configs import common
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg, tasks=("4", "2"))
    config = bridge.defaults("funlora")
    config.name = "fashion16"

    config.data.source = "fashion16:0-7"  # bags and boots come unplanned: `flcl learn`
    config.data.image_size = 16  # the size of the images
    config.data.channels = 1  # grey
    config.data.flip = False  # ours: all shoes point the same way

    config.stream.tasks = args.tasks  # 2 classes each

    config.model.width = 16  # ours: small enough for two CPU cores
    config.model.multipliers = (1, 2, 2)  # ours: 16, 8 and 4 pixels
    config.model.blocks = 1  # ours
    config.model.attention = ()  # ours: the middle block always has attention
    config.model.head_channels = 16  # ours

    config.adapter.family = args.family  # stated: cosine with learned frequencies is best
    config.adapter.learning_rate = 2e-3  # ours: like the trunk in phase 1

    config.phase1.steps = 600  # ours
    config.phase1.batch_size = 64  # ours
    config.phase1.learning_rate = 2e-3  # ours: short runs need larger steps
    config.phase1.warmup_steps = 100  # ours
    config.phase1.ema_decay = 0.995  # ours: a window of 200 steps
    config.phase1.dropout = 0.0  # ours: not enough steps to overfit

    config.phase2.steps = 170  # ours
    config.phase2.batch_size = 64  # ours
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 20  # ours
    config.phase2.ema_decay = 0.98  # ours: a window of 50 steps
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    config.sample.solver = "midpoint"  # ours
    config.sample.num_steps = 4  # ours: 8 function evaluations
    config.sample.chunk = 100  # two chunks for the 200 images of a class

    config.judge.width = 16  # ours
    config.judge.stages = 3  # ours: 16, 8 and 4 pixels
    config.judge.epochs = 5.0  # ours
    config.judge.batch_size = 128  # ours
    config.judge.images_per_class = 200  # ours (F10)
    config.judge.crop = 1  # ours: clothes fill their image

    config.runtime.save_every = 200  # a minute of work
    return common.finish(config, args)
