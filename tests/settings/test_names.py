"""The words that keys accept are the names that the parts of the library declare.

Settings know no JAX, so the names are written there once more; these tests keep them the same.
"""

import typing

from flcl import settings
from flcl.adapters.cores import COMBINATIONS
from flcl.adapters.functions import FAMILIES
from flcl.adapters.modulate import STRATEGIES
from flcl.flow.sampler import SOLVERS
from flcl.heads import HEADS
from flcl.methods import METHODS
from flcl.settings import bridge


def words(run: type[settings.Run], key: str) -> set[str]:
    """What a key with a choice of words accepts."""
    return set(typing.get_args(dict(bridge.keys(run))[key].type))


def test_families_solvers_strategies_and_combinations():
    generator, classifier = settings.RUNS["funlora"], settings.RUNS["fmlora"]
    assert words(generator, "adapter.family") == set(FAMILIES)
    assert words(generator, "sample.solver") == set(SOLVERS)
    assert words(generator, "adapter.strategy") == set(STRATEGIES)
    assert words(classifier, "lora.combine") == set(COMBINATIONS)


def test_methods_have_settings_and_heads_that_exist():
    assert set(settings.RUNS) == set(METHODS)
    for name, method in METHODS.items():
        assert method.name == name
        if issubclass(settings.RUNS[name], settings.ClassifierRun):
            assert words(settings.RUNS[name], "head") <= set(HEADS)
    assert words(settings.RUNS["fmlora"], "head") == set(HEADS)
