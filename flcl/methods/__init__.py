"""The continual methods. Only this module finds a method by its name."""

from flcl import settings
from flcl.compiling import kept
from flcl.data.sequence.stream import TaskStream
from flcl.methods.base import Method, Resolved
from flcl.methods.fmlora import FMLoRA
from flcl.methods.funlora import FunLoRA
from flcl.methods.peers.first_session import FirstSession
from flcl.methods.peers.inflora import InfLoRA
from flcl.methods.peers.lora_baselines import LoRASequential, SDLoRA
from flcl.methods.peers.rsiat import RSIAT
from flcl.methods.peers.slca import SLCA
from flcl.methods.peers.vit_baselines import ClassMean, Frozen, LinearProbe
from flcl.methods.peers.vit_baselines import Finetune as ViTFinetune
from flcl.methods.rivals.ddgr import DDGR
from flcl.methods.rivals.guide import GUIDE
from flcl.methods.rivals.jdcl import JDCL
from flcl.methods.unet_baselines import Finetune, GenerativeReplay

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        FunLoRA,
        Finetune,
        GenerativeReplay,
        DDGR,
        GUIDE,
        JDCL,
        FMLoRA,
        Frozen,
        LinearProbe,
        ClassMean,
        ViTFinetune,
        LoRASequential,
        SDLoRA,
        FirstSession,
        SLCA,
        RSIAT,
        InfLoRA,
    )
}


def resolve(run: settings.Run) -> Resolved:
    """Reads the files that the method `run.method` needs before it is built."""
    return METHODS[run.method].resolve(run)


def sized(run: settings.Run) -> settings.Run:
    """`run` with all that decides shapes, for programs that need no values."""
    return METHODS[run.method].sized(run)


def build(run: settings.Run, stream: TaskStream) -> Method:
    """Builds the method `run.method`."""
    return METHODS[run.method](run, stream)


@kept
def shared(run: settings.Run, stream: TaskStream) -> Method:
    """As `build`, from resolved settings: equal settings give the same object.

    Compiled programs are kept by the method that they are traced from (`compiling.kept`).
    """
    return build(run, stream)
