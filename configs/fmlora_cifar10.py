"""FM-LoRA on CIFAR-10, 5 tasks of 2 classes, with a ViT-S/14 at 112 pixels: one small GPU.

    flcl train --config=fmlora_cifar10 --workdir=runs/fmlora_cifar10

The weights are `.data/vit_s14.safetensors`, a ViT-S/14 in the layout of Hugging Face's
`Dinov2Model` (such as dinov2-small). Others are given by `--config.model.weights=PATH` and
`--config.model.variant=B/14`. `--config.data.source=folder:.data/cifar10` reads images from class
folders instead of the official archive. On a CPU, use fewer images:
`--config.data.train_per_class=100` and `--config.data.test_per_class=50`.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt); `:minutes=10` (as
many epochs as fit); joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg)
    config = bridge.defaults("fmlora")
    config.name = "CIFAR-10"

    config.data.source = "tfds:cifar10"  # prepared from the archive in data.manual_dir
    config.data.image_size = 112  # ours: 8 x 8 patches, a quarter of the work at 224
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.tasks = "5"  # 2 classes each
    config.stream.capacity = 10  # gives all sizes before the data is prepared

    config.model.variant = "S/14"  # ours: small enough for any GPU
    config.model.weights = ".data/vit_s14.safetensors"  # layout of Dinov2Model
    config.model.layer_scale = True  # DINOv2 has it

    # Defaults (M3, M8): Adam 5e-4 with cosine, head 1e-3, batch 128; inputs as the weights need.
    config.train.epochs = 5.0  # ours: 10,000 images per task
    return classifiers.finish(config, args)
