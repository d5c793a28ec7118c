"""How hard the compiler should try, and what it may remember."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache


def run_once() -> dict[str, int] | None:
    """Compiler options of a program that runs once: on CPU, optimising costs more than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


@contextlib.contextmanager
def nothing_remembered() -> Iterator[None]:
    """No compile cache inside: a program for another machine is written to it but never read."""
    before = jax.config.jax_enable_compilation_cache
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


def _switch(on: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", on)
    compilation_cache.reset_cache()  # JAX looks at the switch only once otherwise
