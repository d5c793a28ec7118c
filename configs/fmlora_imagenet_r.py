"""FM-LoRA on ImageNet-R with ViT-B/16 at 224 pixels, 10 tasks of 20 classes (or 5, or 20 tasks).

    flcl train --config=fmlora_imagenet_r --workdir=runs/fmlora_imagenet_r

The data is prepared from the official `imagenet-r.tar` in `data.manual_dir`. The archive has no
split: a fifth of the images, chosen by a hash of their names, becomes the test set. For your own
split, use `--config.data.source=folder:PATH` with `train/` and `test/`. The weights come from the
hub if `huggingface_hub` is installed. `--config.model.weights=PATH` names a local file instead.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt), `:tasks=20`;
joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg, tasks=("10", "5", "20"))
    config = bridge.defaults("fmlora")
    config.name = "ImageNet-R"

    config.data.source = "tfds:imagenet_r"  # 30,000 images of 200 classes
    config.data.image_size = 224  # the size that the weights were trained with
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.tasks = args.choices["tasks"]  # stated: several lengths, up to 20
    config.stream.class_order = "seed:1993"  # peers
    config.stream.capacity = 200  # gives all sizes before the data is prepared

    config.model.variant = "B/16"  # peers
    config.model.weights = classifiers.B16  # peers (M9)
    config.model.normalize = "unit"  # peers (M9): inputs stay in [0, 1]
    config.model.dtype = "bfloat16"  # ours: half the memory of the activations

    # Defaults (M2, M3, M8): rank 10 on q and v, Adam 5e-4 with cosine, head 1e-3, batch 128.
    config.train.epochs = 30.0  # peers
    return classifiers.finish(config, args)
