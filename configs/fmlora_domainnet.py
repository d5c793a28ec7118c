"""FM-LoRA on DomainNet with ViT-B/16 at 224 pixels: six domains, or 5 tasks of 69 classes.

    python launch/train.py --config=configs/fmlora_domainnet.py --workdir=runs/fmlora_domainnet

Two protocols that must not be confused (M10). `dil-6`: one domain after the other, all 345 classes
in each. `cil-5x69`: all domains mixed, 69 new classes in each of 5 tasks, as SD-LoRA and InfLoRA.
Prepared from the official zip files and lists in `data.manual_dir`. The weights come from the hub
when `huggingface_hub` is installed; a local file instead: `--config.model.weights=PATH`.

Arguments: `:smoke`, `:baseline=linear_probe` (or class_mean, finetune, lora_sequential, sd_lora,
joint), `:no_drs` (one rank for all tasks), `:no_dmp` (no prompt), `:protocol=cil-5x69`;
joined by commas. With `smoke` both protocols run two tasks of new classes, because no embedded
data has domains.
"""

from configs import classifiers
from flcl.settings import bridge

_DOMAINS = "clipart,infograph,painting,quickdraw,real,sketch"


def get_config(arg: str = ""):
    """The config of a run; `arg` is described above."""
    args = classifiers.parse_arg(arg, protocol=("dil-6", "cil-5x69"))
    config = bridge.defaults("fmlora")
    config.name = f"DomainNet {args.choices['protocol']}"

    config.data.source = "tfds:domainnet"  # 586,575 images, decoded as they are needed
    config.data.image_size = 224  # the size of the weights
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.capacity = 345  # so that sizes are known before the data is there
    if args.choices["protocol"] == "dil-6":
        config.stream.scenario = "dil"  # stated, without an order of the domains
        config.stream.tasks = "domains"  # one each
        config.stream.domain_order = _DOMAINS  # ours (M10)
    else:
        config.stream.tasks = "5"  # peers: 69 classes each
        config.stream.class_order = "seed:1993"  # peers

    config.model.variant = "B/16"  # peers
    config.model.weights = classifiers.B16  # peers (M9)
    config.model.normalize = "unit"  # peers (M9): inputs stay in [0, 1]
    config.model.dtype = "bfloat16"  # ours: half the memory of the activations

    # Defaults (M2, M3, M8): rank 10 on q and v, Adam 5e-4 with cosine, head 1e-3, batch 128.
    config.train.epochs = 10.0  # peers
    config.runtime.threads = 16  # ours: as many cores as decode 1,000 images a second
    return classifiers.finish(config, args)
