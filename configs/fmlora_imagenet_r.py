"""FM-LoRA on ImageNet-R with ViT-B/16 at 224 pixels, 10 tasks of 20 classes (or 5, or 20 tasks).

    python launch/train.py --config=configs/fmlora_imagenet_r.py --workdir=runs/fmlora_imagenet_r

Prepared from the official `imagenet-r.tar` in `data.manual_dir`. It has no training set of its
own: a fifth of the images, chosen by a hash of their names, is the test set. Your own split:
`--config.data.source=folder:PATH` with `train/` and `test/`. The weights come from the hub when
`huggingface_hub` is installed; a local file instead: `--config.model.weights=PATH`.

Arguments: `:smoke`, `:baseline=linear_probe` (or class_mean, finetune, lora_sequential, sd_lora,
joint), `:no_drs` (one rank for all tasks), `:no_dmp` (no prompt), `:tasks=20`; joined by commas.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg, tasks=("10", "5", "20"))
    config = bridge.defaults("fmlora")
    config.name = "ImageNet-R"

    config.data.source = "tfds:imagenet_r"  # 30,000 images of 200 classes
    config.data.image_size = 224  # the size of the weights
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.tasks = args.choices["tasks"]  # stated: several lengths, up to 20
    config.stream.class_order = "seed:1993"  # peers
    config.stream.capacity = 200  # so that sizes are known before the data is there

    config.model.variant = "B/16"  # peers
    config.model.weights = classifiers.B16  # peers (M9)
    config.model.normalize = "unit"  # peers (M9): inputs stay in [0, 1]
    config.model.dtype = "bfloat16"  # ours: half the memory of the activations

    # Defaults (M2, M3, M8): rank 10 on q and v, Adam 5e-4 with cosine, head 1e-3, batch 128.
    config.train.epochs = 30.0  # peers
    return classifiers.finish(config, args)
