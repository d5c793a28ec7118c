"""The continual methods, by the name that `config.method` uses."""

from flcl import settings
from flcl.data.stream import TaskStream
from flcl.methods.base import Generator
from flcl.methods.baselines import Finetune, GenerativeReplay
from flcl.methods.funlora import FunLoRA

METHODS: dict[str, type[Generator]] = {
    "funlora": FunLoRA,
    "finetune": Finetune,
    "generative_replay": GenerativeReplay,
}


def build(run: settings.GeneratorRun, stream: TaskStream) -> Generator:
    """The method that `run.method` names."""
    return METHODS[run.method](run, stream)
