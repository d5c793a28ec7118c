"""All benchmarks by name, and the loop that runs them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from flcl import files, hints, waiting
from flcl.bench.figures import Figure
from flcl.bench.items import (
    classifiers,
    convolutions,
    generators,
    judges,
    loops,
    memory,
    peers,
    precision,
    tasks,
)
from flcl.bench.sizes import Size

Benchmark = Callable[[Size, int], Iterator[Figure]]

# The first starts other processes: on a TPU this works only before this process uses the chips.
ITEMS: dict[str, Benchmark] = {
    "first_step": loops.first_step,
    "modulated_conv": convolutions.modulated_convolution,
    "phase1_step": generators.phase1_step,
    "step_strategies": generators.step_strategies,
    "phase2_step": generators.phase2_step,
    "sampler": generators.sampler,
    "bfloat16": precision.bfloat16,
    "peak_memory": memory.peak_memory,
    "judge_step": judges.judge_step,
    "vit_step": classifiers.vit_step,
    "vit_inference": classifiers.vit_inference,
    "torchcfm_step": peers.torchcfm_step,
    "torchcfm_sampler": peers.torchcfm_sampler,
    "torchcfm_forms": peers.torchcfm_forms,
    "peft_step": peers.peft_step,
    "loader": loops.loader,
    "steps_per_call": loops.steps_per_call,
    "last_task": tasks.last_task,
    "bytes_per_class": tasks.bytes_per_class,
}

WANTED = (
    *("phase1_step", "sampler", "step_strategies", "bfloat16", "phase2_step", "torchcfm_step"),
    *("vit_step", "vit_inference", "judge_step", "peak_memory", "torchcfm_sampler"),
    *("torchcfm_forms", "peft_step", "modulated_conv", "steps_per_call", "loader"),
    *("last_task", "bytes_per_class", "first_step"),
)
"""All items, those first that decide most about a machine: for `--minutes`."""


def select(names: Iterable[str]) -> list[str]:
    """The items with these names in the order of `ITEMS`; all items if there are no names.

    Raises `ValueError` for an unknown name, with the nearest known name.
    """
    names = [name.strip() for name in names]
    for name in names:
        if name not in ITEMS:
            hint = hints.did_you_mean(name, list(ITEMS))
            raise ValueError(f"--only={name}: no such benchmark.{hint} See --list")
    return [name for name in ITEMS if not names or name in names]


def most_wanted(names: Sequence[str]) -> list[str]:
    """The same names with the most wanted ones first."""
    return sorted(names, key=WANTED.index)


def run(
    names: Iterable[str], size: Size, rounds: int, say: Callable[[str], None]
) -> Iterator[Figure]:
    """The figures of some items, one after the other.

    `say` is called with one line for each item that runs, and with the reason if one is left out.
    """
    for name in names:
        say(f"{name}: {summary(name)}")
        try:
            yield from ITEMS[name](size, rounds)
        except peers.MissingError as reason:
            say(f"{name}: left out, {reason}")


def run_within(
    names: Iterable[str],
    size: Size,
    rounds: int,
    say: Callable[[str], None],
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Figure]:
    """As `run`, for `minutes`: an item that would take longer than what is left is left out.

    How long an item takes is known from its last run on such a device, or else guessed. An item
    that fails, for example because a device has too little memory, does not stop the others.
    """
    end = clock() + 60.0 * minutes
    for name in names:
        stored = waiting.name_of(f"benchmark {name}", (size, rounds))
        seconds = waiting.last_seconds(stored)
        expected, left = size.guess if seconds is None else seconds, end - clock()
        if expected > left:
            known = "takes about" if seconds is not None else "may take"
            say(
                f"{name}: left out, it {known} {waiting.spoken(expected)} and "
                f"{waiting.spoken(max(0.0, left))} are left"
            )
            continue
        started = clock()
        try:
            for figure in run([name], size, rounds, say):
                yield figure
                if clock() > end:
                    say(f"{name}: ended after {figure.name}, because the time is over")
                    return
        except Exception as error:
            say(f"{name}: failed, {hints.brief(files.reason(error))}")
        else:
            waiting.keep_seconds(stored, clock() - started)


def summary(name: str) -> str:
    """One line about what an item measures."""
    return (ITEMS[name].__doc__ or "").partition("\n")[0]
