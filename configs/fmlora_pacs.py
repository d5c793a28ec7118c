"""FM-LoRA on PACS, four domains one after the other, with a ViT-S/14 at 112 pixels.

    flcl train --config=fmlora_pacs --workdir=runs/fmlora_pacs

The images are `.data/pacs112/{train,test}/<domain>/<class>/*.jpg`. The weights are
`.data/vit_s14.safetensors`, a ViT-S/14 in the layout of Hugging Face's `Dinov2Model` (such as
dinov2-small). `--config.data.source=folder:PATH` and `--config.model.weights=PATH` name others.
On a CPU, use fewer images: `--config.data.train_per_class=40` counts per class and domain.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt); joined by commas.
With `smoke` it runs two tasks of new classes, because no embedded data has domains.
"""

from configs import classifiers
from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg)
    config = bridge.defaults("fmlora")
    config.name = "PACS"

    config.data.source = "folder:.data/pacs112"  # 9,991 images of 7 classes
    config.data.image_size = 112  # ours: 8 x 8 patches, a quarter of the work at 224
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.scenario = "dil"  # all 7 classes in every task
    config.stream.tasks = "domains"  # one task per domain
    config.stream.domain_order = "photo,art_painting,cartoon,sketch"  # less and less like photos
    config.stream.capacity = 7  # gives all sizes before the data is prepared

    config.model.variant = "S/14"  # ours: small enough for any GPU
    config.model.weights = ".data/vit_s14.safetensors"  # layout of Dinov2Model
    config.model.layer_scale = True  # DINOv2 has it

    # Defaults (M3, M8): Adam 5e-4 with cosine, head 1e-3, batch 128, 20 epochs; inputs are
    # normalised as the weights require.
    return classifiers.finish(config, args)
