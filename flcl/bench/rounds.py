"""Times calls side by side, so a slow moment of the machine affects all of them."""

import time
from collections.abc import Callable, Mapping

import jax

Call = Callable[[], object]


def interleave(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call in each round, `{name: [rounds]}`.

    In a round every call runs once. Every second round runs the calls in reverse order, so cold
    caches do not always affect the same call. A call ends when all arrays it returned are ready.

    Args:
      warm: number of untimed runs of each call before the first round.
      clock: a clock in seconds.

    Raises:
      ValueError: for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least 1 is needed")
    for call in calls.values():
        for _ in range(warm):
            jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else reversed(calls):
            start = clock()
            jax.block_until_ready(calls[name]())
            seconds[name].append(clock() - start)
    return seconds
