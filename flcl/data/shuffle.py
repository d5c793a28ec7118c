"""An endless sequence of shuffled epochs, for images, labels and batches."""

import functools

import numpy as np


class Shuffled:
    """An endless sequence of epochs: all `values` [N] in an order that depends on (stream, epoch).

    Within an epoch every value comes once. An epoch is shuffled at once, and the last few epochs
    stay in memory, because grain's own shuffle takes 7 us for each index, and milliseconds even
    for the few values of a list of labels.

    stream: non-negative integers that name the random stream. kept: epochs in memory, at least as
    many as are read at the same time.
    """

    def __init__(self, values: np.ndarray, stream: list[int], kept: int = 2):
        self._size = len(values)

        @functools.lru_cache(maxsize=kept)
        def epoch(number: int) -> np.ndarray:
            # The epoch is part of the seed, so any epoch can be made without those before it.
            return np.random.default_rng([*stream, number]).permutation(values)

        self._epoch = epoch

    def between(self, start: int, stop: int) -> np.ndarray:
        """Entries `start` to `stop - 1` of the sequence."""
        first, last = start // self._size, (stop - 1) // self._size
        epochs = [self._epoch(number) for number in range(first, last + 1)]
        entries = epochs[0] if first == last else np.concatenate(epochs)
        return entries[start - first * self._size : stop - first * self._size]
