"""How hard the compiler should try."""

import jax


def run_once() -> dict[str, int] | None:
    """Compiler options of a program that runs once: on CPU, optimising costs more than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
