"""Named random streams."""

import itertools

import jax
import numpy as np

from flcl.rng import host_generator, stream_key


def test_every_part_of_the_name_matters_and_nothing_else():
    names = list(itertools.product((0, 1), ("train", "begin"), (0, 1)))
    keys = [tuple(np.asarray(jax.random.key_data(stream_key(*n)))) for n in names]
    assert len(set(keys)) == len(keys)
    again = [tuple(np.asarray(jax.random.key_data(stream_key(*n)))) for n in names]
    assert keys == again


def test_generators_of_the_host_have_names_too():
    names = list(itertools.product((0, 1), ("holdout", "other"), (1, 2), (0, 1)))
    drawn = [tuple(host_generator(*n).permutation(1000)) for n in names]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [tuple(host_generator(*n).permutation(1000)) for n in names]
    # NumPy fills short seeds with zeros: without a name, label 0 would be epoch 0 of a shuffle.
    shuffles = [tuple(np.random.default_rng([0, 1, *n]).permutation(1000)) for n in ((0,), (0, 0))]
    assert shuffles[0] == shuffles[1] and not set(shuffles) & set(drawn)
