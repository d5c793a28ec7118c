"""The endless shuffle: every entry before any returns, and a pure function of the stream."""

import numpy as np
import pytest

from flcl.data.shuffle import Shuffled


@pytest.mark.parametrize(("count", "size"), [(10, 4), (3, 8), (8, 8), (1, 5)])
def test_every_value_comes_before_any_returns(count, size):
    order = Shuffled(np.arange(count) + 7, [0, 1])
    parts = [order.between(step * size, (step + 1) * size) for step in range(3 * count)]
    stream = np.concatenate(parts)
    epochs = stream[: len(stream) // count * count].reshape(-1, count)
    wanted = np.tile(np.arange(count) + 7, (len(epochs), 1))
    np.testing.assert_array_equal(np.sort(epochs, axis=1), wanted)
    if count > 2:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_epoch_is_numpys_permutation_of_its_stream():
    order = Shuffled(np.arange(9), [3, 4])
    got = np.concatenate([order.between(0, 5), order.between(5, 18)])
    epochs = [np.random.default_rng([3, 4, epoch]).permutation(9) for epoch in range(2)]
    np.testing.assert_array_equal(got, np.concatenate(epochs))


def test_what_was_read_before_changes_nothing():
    fresh, warmed = Shuffled(np.arange(100), [1]), Shuffled(np.arange(100), [1])
    for start in (640, 0, 48):
        warmed.between(start, start + 16)
    np.testing.assert_array_equal(warmed.between(144, 160), fresh.between(144, 160))
    assert (Shuffled(np.arange(100), [2]).between(144, 160) != fresh.between(144, 160)).any()
