"""FM-LoRA on CIFAR-100 with ViT-B/16 at 224 pixels, 10 tasks of 10 classes (or 5, or 20).

    flcl train --config=fmlora_cifar100 --workdir=runs/fmlora_cifar100

The weights come from the hub if `huggingface_hub` is installed. `--config.model.weights=PATH` names
a local file instead, and `--config.stream.class_order=seed:1994` gives another class order.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt), `:tasks=5`; joined
by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg, tasks=("10", "5", "20"))
    config = bridge.defaults("fmlora")
    config.name = "CIFAR-100"

    config.data.source = "tfds:cifar100"  # prepared from the archive in data.manual_dir
    config.data.image_size = 224  # the size that the weights were trained with
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers
    config.data.memory_gib = 8.0  # ours: 50,000 images of 224 pixels are 7 GiB

    config.stream.tasks = args.choices["tasks"]  # peers use 10
    config.stream.class_order = "seed:1993"  # peers
    config.stream.capacity = 100  # gives all sizes before the data is prepared

    config.model.variant = "B/16"  # peers
    config.model.weights = classifiers.B16  # peers (M9)
    config.model.normalize = "unit"  # peers (M9): inputs stay in [0, 1]
    config.model.dtype = "bfloat16"  # ours: half the memory of the activations

    # Defaults (M2, M3, M8): rank 10 on q and v, Adam 5e-4 with cosine, head 1e-3, batch 128,
    # 20 epochs.
    return classifiers.finish(config, args)
