"""The endless sequence of all that is drawn epoch by epoch: images, labels, batches."""

import functools

import numpy as np


class Shuffled:
    """Endless sequence of epochs, each all `values` [N] in an order drawn from (stream, epoch).

    An entry comes again only when all others have come. Whole epochs are shuffled at once and the
    last few kept: grain's own shuffle goes index by index, 7 us each, and takes milliseconds for as
    few values as there are labels.

    stream: non-negative integers that name the random stream; kept: epochs that are remembered, at
    least as many as readers look at together.
    """

    def __init__(self, values: np.ndarray, stream: list[int], kept: int = 2):
        self._size = len(values)

        @functools.lru_cache(maxsize=kept)
        def epoch(number: int) -> np.ndarray:
            return np.random.default_rng([*stream, number]).permutation(values)

        self._epoch = epoch

    def between(self, start: int, stop: int) -> np.ndarray:
        """Entries `start` to `stop - 1` of the sequence."""
        first, last = start // self._size, (stop - 1) // self._size
        epochs = [self._epoch(number) for number in range(first, last + 1)]
        entries = epochs[0] if first == last else np.concatenate(epochs)
        return entries[start - first * self._size : stop - first * self._size]
