"""FM-LoRA on your own images, any number of classes: two new classes in every task.

    flcl train --config=fmlora_images --config.data.source=folder:PATH

Add `--workdir=DIR` for the folder of the run and `--config.model.weights=PATH` for a vision
transformer of any size that the file has. Other sources than folders work, too. To learn domains
instead of classes, add `--config.stream.scenario=dil` and `--config.stream.tasks=domains`.

Arguments: `:small` (16 pixels with the embedded tiny ViT, minutes on two CPU cores), `:smoke`,
`:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published), `:no_drs` (the same with
one rank for all tasks), `:no_dmp` (without the prompt), `:tasks=per:5` (five classes in every
task); joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg, small=True, tasks=("per:2", "per:5", "per:10"))
    config = bridge.defaults("fmlora")
    config.name = "images"

    config.data.source = "folder:images"  # your folder of images
    config.data.image_size = 224  # the size that the backbone was trained with
    config.data.channels = 3  # RGB; grey images are converted
    config.data.flip = True  # ours: most pictures have no left and right

    config.stream.tasks = args.choices["tasks"]  # the last task takes the remaining classes

    config.model.variant = "weights"  # the size of the file below: B/16, 196 patches
    config.model.weights = classifiers.B16  # stated: a ViT trained on ImageNet; peers: this one

    # Defaults (M3, M8): Adam 5e-4 with cosine, head 1e-3, batch 128, 20 epochs; inputs are
    # normalised as the weights require.
    if args.small:
        _small(config)
    return classifiers.finish(config, args)


def _small(config):
    """Values for a run of minutes on two CPU cores; all of them are ours."""
    config.name = "images at 16 pixels"
    config.data.image_size = 16  # the size that the tiny ViT was trained with
    config.model.weights = "tiny"  # embedded; it was trained on clothes only
    config.train.epochs = 10.0
    config.train.batch_size = 32
    config.train.learning_rate = 1e-4  # a higher rate forgets more on such a small trunk
    config.train.head_learning_rate = 1e-2
    config.train.min_crop = 0.6
    config.runtime.save_every = 50
