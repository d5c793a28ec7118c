"""Every key of a run: its default, its type and the one comment that explains it.

A config file in `configs/` starts from these defaults and changes a few. `bridge` turns the edited
tree back into these frozen classes, so code past the entry points never sees a `ConfigDict`.
"(ours)" marks a choice the papers leave open; F1-F13 and M1-M12 are explained in
`configs/README.md`.
"""

from flcl.settings.classification import (
    ClassifierRun,
    FLoRA,
    FMLoRARun,
    LoRARun,
    LowRank,
    Prompt,
    RankSelection,
    Sizes,
    Train,
    ViT,
    vit_sizes,
)
from flcl.settings.generation import (
    Adapter,
    FamilyName,
    FinetuneRun,
    Flow,
    FunLoRARun,
    GeneratorRun,
    Judge,
    Phase,
    Replay,
    ReplayRun,
    Sample,
    UNet,
)
from flcl.settings.shared import Data, Run, Runtime, Stream

RUNS: dict[str, type[Run]] = {
    "funlora": FunLoRARun,
    "finetune": FinetuneRun,
    "generative_replay": ReplayRun,
    "fmlora": FMLoRARun,
    "linear_probe": ClassifierRun,
    "class_mean": ClassifierRun,
    "vit_finetune": ClassifierRun,
    "lora_sequential": LoRARun,
    "sd_lora": LoRARun,
}

__all__ = [
    "RUNS",
    "Adapter",
    "ClassifierRun",
    "Data",
    "FLoRA",
    "FMLoRARun",
    "FamilyName",
    "FinetuneRun",
    "Flow",
    "FunLoRARun",
    "GeneratorRun",
    "Judge",
    "LoRARun",
    "LowRank",
    "Phase",
    "Prompt",
    "RankSelection",
    "Replay",
    "ReplayRun",
    "Run",
    "Runtime",
    "Sample",
    "Sizes",
    "Stream",
    "Train",
    "UNet",
    "ViT",
    "vit_sizes",
]
