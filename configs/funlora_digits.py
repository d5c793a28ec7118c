"""FunLoRA on the embedded 8x8 digits, 5 tasks of 2 classes: a minute or two on a laptop.

    flcl train --config=funlora_digits --workdir=runs/digits

Arguments: `:smoke`, `:baseline=joint` (or another word of README.md), `:family=shift`
(or another family, with its own learning rate), `:tasks=2`, `:sampler=heun`; joined by commas.
"""

from configs import common
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = common.parse_arg(arg)
    config = bridge.defaults("funlora")
    config.name = "digits"

    config.data.source = "digits"  # 1,797 grey images; a fifth of each class is the test set
    config.data.image_size = 8  # the size of the images
    config.data.channels = 1  # grey
    config.data.flip = False  # a mirrored digit is a different symbol

    config.stream.tasks = args.tasks  # 2 classes each

    config.model.width = 16  # ours: small enough for two CPU cores
    config.model.multipliers = (1, 2)  # ours: 8 and 4 pixels
    config.model.blocks = 1  # ours
    config.model.attention = ()  # ours: the middle block always has attention
    config.model.head_channels = 16  # ours

    config.adapter.family = args.family  # stated: cosine with learned frequencies is best
    config.adapter.learning_rate = 2e-3  # ours: like the trunk in phase 1

    config.phase1.steps = 600  # ours: enough for a trunk at this size
    config.phase1.batch_size = 64  # ours
    config.phase1.learning_rate = 2e-3  # ours: short runs need larger steps
    config.phase1.warmup_steps = 50  # ours
    config.phase1.ema_decay = 0.99  # ours: a window of 100 steps
    config.phase1.dropout = 0.0  # ours: not enough steps to overfit

    config.phase2.steps = 150  # ours: more steps gain little
    config.phase2.batch_size = 64  # ours
    config.phase2.learning_rate = common.FACTOR_LEARNING_RATE[args.family]  # ours (F8)
    config.phase2.warmup_steps = 10  # ours
    config.phase2.ema_decay = 0.95  # ours: a window of 20 steps
    config.phase2.dropout = 0.0  # ours (F5): the trunk is frozen

    config.sample.solver = "midpoint"  # ours (F9): as good as many steps of Heun, see RESULTS.md
    config.sample.num_steps = 2  # ours (F9): 4 function evaluations
    config.sample.chunk = 80  # two chunks for the 150 images of a class

    config.judge.width = 16  # ours: 8x8 images do not need 64 channels
    config.judge.epochs = 10.0  # ours
    config.judge.batch_size = 64  # ours
    config.judge.learning_rate = 0.05  # ours
    config.judge.crop = 0  # ours: a digit fills its image
    config.judge.flip = False  # a mirrored digit is a different symbol
    config.judge.images_per_class = 150  # ours (F10): about the number of real images

    config.runtime.save_every = 200  # a few seconds of work
    return common.finish(config, args, heun=20)
