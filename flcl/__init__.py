"""flcl: continual learning of vision models on JAX."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["describe", "learn", "open_run", "precompile", "run", "step_flops"]


def __getattr__(name: str):
    # JAX takes seconds to import: `import flcl` alone should not.
    if name in __all__:
        return getattr(import_module("flcl.api"), name)
    raise AttributeError(f"module 'flcl' has no attribute {name!r}")
