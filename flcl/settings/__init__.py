"""Every key of a run: its default, its type and the comment that explains it.

A config file in `configs/` starts from these defaults and changes a few. `bridge` turns the edited
`ConfigDict` back into these frozen classes; only the entry points see a `ConfigDict`. "(ours)"
marks a choice that the papers leave open; F1-F13 and M1-M12 are explained in `configs/README.md`.
"""

from flcl.settings.classification import (
    ClassifierRun,
    ClassMeanRun,
    FMLoRARun,
    FrozenRun,
    LinearProbeRun,
    LoRARun,
    MovingRun,
    SDLoRARun,
    ViTFinetuneRun,
    rank_selector,
)
from flcl.settings.classifier.adapters import (
    SITES,
    FLoRA,
    LowRank,
    Prompt,
    RankSelection,
    TaskLoRAs,
    vit_blocks,
)
from flcl.settings.classifier.combined import PARTS, Combined
from flcl.settings.classifier.peers import FirstSessionRun, InfLoRARun, RSIATRun, SLCARun
from flcl.settings.classifier.training import HeadTrain, Testing, Train
from flcl.settings.classifier.vit import AdaptedViT, FrozenViT, Sizes, TrainedViT, ViT, vit_sizes
from flcl.settings.generation import FinetuneRun, FunLoRARun, GeneratorRun, Replay, ReplayRun
from flcl.settings.generator.factors import Adapter, FamilyName, Straighten
from flcl.settings.generator.judge import Judge
from flcl.settings.generator.network import Trunk, UNet
from flcl.settings.generator.rivals import DDGRRun, GUIDERun, JDCLRun
from flcl.settings.generator.sampling import GuidedSample, Sample
from flcl.settings.generator.training import Flow, Phase
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
        DDGRRun,
        GUIDERun,
        JDCLRun,
        FMLoRARun,
        FrozenRun,
        LinearProbeRun,
        ClassMeanRun,
        ViTFinetuneRun,
        LoRARun,
        SDLoRARun,
        FirstSessionRun,
        SLCARun,
        RSIATRun,
        InfLoRARun,
    )
    for method in methods_of(cls)
}
"""The settings class of each method; each class declares the methods that it is for."""

__all__ = [
    "PARTS",
    "RUNS",
    "SITES",
    "AdaptedViT",
    "Adapter",
    "ClassMeanRun",
    "ClassStream",
    "ClassifierRun",
    "Combined",
    "DDGRRun",
    "Data",
    "FLoRA",
    "FMLoRARun",
    "FamilyName",
    "FinetuneRun",
    "FirstSessionRun",
    "Flow",
    "FrozenRun",
    "FrozenViT",
    "FunLoRARun",
    "GUIDERun",
    "GeneratorRun",
    "GuidedSample",
    "HeadTrain",
    "InfLoRARun",
    "JDCLRun",
    "Judge",
    "LinearProbeRun",
    "LoRARun",
    "LowRank",
    "MovingRun",
    "Phase",
    "Prompt",
    "RSIATRun",
    "RankSelection",
    "Replay",
    "ReplayRun",
    "Run",
    "Runtime",
    "SDLoRARun",
    "SLCARun",
    "Sample",
    "Sizes",
    "Straighten",
    "Stream",
    "TaskLoRAs",
    "Testing",
    "Train",
    "TrainedViT",
    "TrainingData",
    "Trunk",
    "UNet",
    "ViT",
    "ViTFinetuneRun",
    "methods_of",
    "rank_selector",
    "vit_blocks",
    "vit_sizes",
]
