"""Named random streams."""

import itertools

import jax
import numpy as np

from flcl.rng import stream_key


def test_every_part_of_the_name_matters_and_nothing_else():
    names = list(itertools.product((0, 1), ("train", "begin"), (0, 1)))
    keys = [tuple(np.asarray(jax.random.key_data(stream_key(*n)))) for n in names]
    assert len(set(keys)) == len(keys)
    again = [tuple(np.asarray(jax.random.key_data(stream_key(*n)))) for n in names]
    assert keys == again
