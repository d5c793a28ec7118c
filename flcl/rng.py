"""All randomness: a key is a function of (seed, stream name, task), then folded with the step."""

import zlib

import jax
import numpy as np


def stream_key(seed: int, name: str, task: int = 0) -> jax.Array:
    """Key of a named stream; adding a stream never shifts another one.

    seed: an integer, or a traced one.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, task)


def host_generator(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """The same for draws in NumPy: a generator of (seed, stream name, task and other numbers)."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *numbers])
