"""FM-LoRA on CUB-200-2011 with ViT-B/16 at 224 pixels, 10 tasks of 20 classes.

    flcl train --config=fmlora_cub200 --workdir=runs/fmlora_cub200

The data is prepared from the official `CUB_200_2011.tgz` in `data.manual_dir`. The weights come
from the hub if `huggingface_hub` is installed. `--config.model.weights=PATH` names a local file
instead.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt); joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg)
    config = bridge.defaults("fmlora")
    config.name = "CUB-200"

    config.data.source = "tfds:cub200"  # 5,994 training and 5,794 test images, the official split
    config.data.image_size = 224  # the size that the weights were trained with
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.tasks = "10"  # peers: 20 classes each
    config.stream.class_order = "seed:1993"  # peers
    config.stream.capacity = 200  # gives all sizes before the data is prepared

    config.model.variant = "B/16"  # peers
    config.model.weights = classifiers.B16  # peers (M9)
    config.model.normalize = "unit"  # peers (M9): inputs stay in [0, 1]
    config.model.dtype = "bfloat16"  # ours: half the memory of the activations

    # Defaults (M2, M3, M8): rank 10 on q and v, Adam 5e-4 with cosine, head 1e-3, batch 128,
    # 20 epochs of five steps. Look at the class-mean head too: it is strong on birds.
    return classifiers.finish(config, args)
