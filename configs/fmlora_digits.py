"""FM-LoRA on the embedded 8x8 digits, 5 tasks of 2 classes, with the embedded tiny ViT: a minute.

    flcl train --config=fmlora_digits --workdir=runs/fmlora_digits

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt); joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg)
    config = bridge.defaults("fmlora")
    config.name = "digits"

    config.data.source = "digits"  # 1,797 grey images; a fifth of each class is the test set
    config.data.image_size = 16  # the size that the tiny ViT was trained with
    config.data.channels = 3  # a ViT takes RGB
    config.data.flip = False  # a mirrored digit is a different symbol

    config.stream.tasks = "5"  # 2 classes each

    config.model.variant = "Nano/4"  # 16 patches of 4 x 4 pixels
    config.model.weights = "tiny"  # embedded; it was trained on clothes only

    config.train.epochs = 10.0  # ours: enough for 290 images per task
    config.train.batch_size = 32  # ours: nine steps per epoch
    config.train.learning_rate = 1e-4  # ours: a higher rate forgets more on such a small trunk
    config.train.head_learning_rate = 1e-2  # ours: ninety steps per task
    config.train.min_crop = 0.6  # ours: a smaller part may look like another digit
    config.runtime.save_every = 50  # a few seconds of work
    return classifiers.finish(config, args)
