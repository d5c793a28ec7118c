"""SLCA: slow learner with classifier alignment (Zhang, Wang, Kang, Chen and Wei, ICCV 2023)."""

from flcl import settings
from flcl.methods.peers.alignment import AlignedClassifier
from flcl.methods.peers.vit_baselines import Finetune


class SLCA(AlignedClassifier, Finetune):
    """All parameters train, the trunk a hundred times more slowly than the head; then alignment.

    Memory: `trunk`, which every task stores, `head` and `aligned`.
    """

    name = "slca"
    run: settings.SLCARun
