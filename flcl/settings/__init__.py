"""Every key of a run: its default, its type and the one comment that explains it.

A config file in `configs/` starts from these defaults and changes a few. `bridge` turns the edited
tree back into these frozen classes, so code past the entry points never sees a `ConfigDict`.
"(ours)" marks a choice the papers leave open; F1-F13 and M1-M12 are explained in
`configs/README.md`.
"""

from flcl.settings.classification import (
    SITES,
    AdaptedViT,
    ClassifierRun,
    ClassMeanRun,
    FLoRA,
    FMLoRARun,
    FrozenViT,
    HeadTrain,
    LinearProbeRun,
    LoRARun,
    LowRank,
    Prompt,
    RankSelection,
    Sizes,
    Testing,
    Train,
    TrainedViT,
    ViT,
    ViTFinetuneRun,
    fixed_rank,
    vit_blocks,
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
from flcl.settings.shared import (
    ClassStream,
    Data,
    Run,
    Runtime,
    Stream,
    TrainingData,
    methods_of,
)

RUNS: dict[str, type[Run]] = {
    method: cls
    for cls in (
        FunLoRARun,
        FinetuneRun,
        ReplayRun,
        FMLoRARun,
        LinearProbeRun,
        ClassMeanRun,
        ViTFinetuneRun,
        LoRARun,
    )
    for method in methods_of(cls)
}
"""The settings class of every method; the classes themselves say which methods they are for."""

__all__ = [
    "RUNS",
    "SITES",
    "AdaptedViT",
    "Adapter",
    "ClassMeanRun",
    "ClassStream",
    "ClassifierRun",
    "Data",
    "FLoRA",
    "FMLoRARun",
    "FamilyName",
    "FinetuneRun",
    "Flow",
    "FrozenViT",
    "FunLoRARun",
    "GeneratorRun",
    "HeadTrain",
    "Judge",
    "LinearProbeRun",
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
    "Testing",
    "Train",
    "TrainedViT",
    "TrainingData",
    "UNet",
    "ViT",
    "ViTFinetuneRun",
    "fixed_rank",
    "methods_of",
    "vit_blocks",
    "vit_sizes",
]
