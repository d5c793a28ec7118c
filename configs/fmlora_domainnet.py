"""FM-LoRA on DomainNet with ViT-B/16 at 224 pixels: six domains, or 5 tasks of 69 classes.

    flcl train --config=fmlora_domainnet --workdir=runs/fmlora_domainnet

There are two protocols, which must not be confused (M10). In `dil-6`, a task is one domain with all
345 classes. In `cil-5x69`, all domains are mixed, and each of 5 tasks has 69 new classes, as in
SD-LoRA and InfLoRA. The data is prepared from the official zip files and lists in
`data.manual_dir`. The weights come from the hub if `huggingface_hub` is installed.
`--config.model.weights=PATH` names a local file instead.

Arguments: `:smoke`, `:baseline=NAME` (see README.md); `:paper` (FM-LoRA as it is published),
`:no_drs` (the same with one rank for all tasks), `:no_dmp` (without the prompt),
`:protocol=cil-5x69`; joined by commas. With `smoke` both protocols run two tasks of new classes,
because no embedded data has domains.
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
    config.data.image_size = 224  # the size that the weights were trained with
    config.data.channels = 3  # RGB
    config.data.flip = True  # peers

    config.stream.capacity = 345  # gives all sizes before the data is prepared
    if args.choices["protocol"] == "dil-6":
        config.stream.scenario = "dil"  # stated, without an order of the domains
        config.stream.tasks = "domains"  # one task per domain
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
    config.runtime.threads = 16  # ours: 16 cores decode 1,000 images a second
    return classifiers.finish(config, args)
