"""flcl: continual learning of vision models on JAX.

  settings = flcl.load_config("funlora_digits", {"phase1.steps": 300})   a config, with changes
  run = flcl.train(settings, "runs/a")      trains, or continues what was stopped; opens the run
  run = flcl.open_run("runs/a")             opens a run on disk
  run.learn("folder:/new/images")           learns classes that were not planned
  run.results                               what results.json holds: accuracies and more
  run.sample([3, 5], per_class=16)          a generator (FunLoRA): images of learned classes
  run.classify(["a.png"])                   a classifier (FM-LoRA): the class of each image
  print(flcl.compare("runs/*"))             finished runs in one table, over seeds and orders
  flcl.describe(settings)                   sizes, before anything is trained
  flcl.step_flops(settings)                 the work of a training step of a classifier
  flcl.precompile(settings, "v5e:4x4")      memory and work on devices that are not here

`help` of any of these says more; `flcl --help` lists the programs of the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "ClassifierOnDisk",
    "GeneratorOnDisk",
    "TwoRuns",
    "compare",
    "describe",
    "load_config",
    "open_run",
    "precompile",
    "step_flops",
    "train",
]

if TYPE_CHECKING:
    from flcl.api import (
        ClassifierOnDisk,
        GeneratorOnDisk,
        TwoRuns,
        describe,
        load_config,
        open_run,
        precompile,
        step_flops,
        train,
    )
    from flcl.api import (
        run as run,
    )
    from flcl.comparison import compare


def __getattr__(name: str):
    # JAX takes seconds to import: `import flcl` alone should not.
    if name == "load_config":
        return import_module("flcl.settings.given.overrides").load_config
    if name == "compare":
        return import_module("flcl.comparison").compare
    if name in (*__all__, "run"):
        return getattr(import_module("flcl.api"), name)
    hint = "" if name.startswith("_") else import_module("flcl.hints").did_you_mean(name, __all__)
    raise AttributeError(f"module 'flcl' has no attribute {name!r}.{hint}")


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"]
