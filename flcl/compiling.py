"""Options of the XLA compiler and of its cache."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache


def run_once() -> dict[str, int] | None:
    """Options to compile a program that runs once: on CPU, optimising costs more than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


@contextlib.contextmanager
def nothing_remembered() -> Iterator[None]:
    """Switches the compile cache off: a program for another machine would never be read from it."""
    before = jax.config.jax_enable_compilation_cache
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


def _switch(on: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", on)
    compilation_cache.reset_cache()  # JAX would otherwise read the switch only once
