"""The continual methods, by the name that `config.method` uses."""

from flcl import settings
from flcl.data.stream import TaskStream
from flcl.methods import vit_baselines
from flcl.methods.base import Method
from flcl.methods.baselines import Finetune, GenerativeReplay
from flcl.methods.fmlora import FMLoRA
from flcl.methods.funlora import FunLoRA

METHODS: dict[str, type[Method]] = {
    "funlora": FunLoRA,
    "finetune": Finetune,
    "generative_replay": GenerativeReplay,
    "fmlora": FMLoRA,
    "linear_probe": vit_baselines.LinearProbe,
    "class_mean": vit_baselines.ClassMean,
    "vit_finetune": vit_baselines.Finetune,
    "lora_sequential": vit_baselines.LoRASequential,
    "sd_lora": vit_baselines.SDLoRA,
}


def build(run: settings.Run, stream: TaskStream) -> Method:
    """The method that `run.method` names."""
    return METHODS[run.method](run, stream)
