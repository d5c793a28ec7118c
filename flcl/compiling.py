"""Options of the XLA compiler and of its cache, and programs that later runs use again."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

_PROGRAMS = 8
"""Results that each `kept` function keeps: bounded, because a compiled program takes memory."""
_caches: dict[Callable, Callable] = {}


def kept(function: Callable) -> Callable:
    """Decorator of a function that makes compiled programs: equal arguments give the same ones.

    So a process that makes the same run again, or opens it, neither traces nor compiles again.
    Arguments are hashable. Results hold programs and what these were traced from, no parameters.
    """

    @functools.wraps(function)
    def made_once(*arguments):
        return _caches[function](*arguments)

    _caches[function] = _new_cache(function)
    return made_once


def _new_cache(function: Callable) -> Callable:
    return functools.lru_cache(maxsize=_PROGRAMS)(function)


def forget_programs() -> None:
    """Drops all `kept` programs, for code that changes what they were traced from."""
    for function in _caches:
        _caches[function] = _new_cache(function)


@contextlib.contextmanager
def other_programs() -> Iterator[None]:
    """Inside, no `kept` program from before is used; after it, only those from before are."""
    before = dict(_caches)
    forget_programs()
    try:
        yield
    finally:
        _caches.update(before)


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
