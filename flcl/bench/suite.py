"""All benchmarks by name, and the loop that runs them."""

from collections.abc import Callable, Iterable, Iterator

from flcl import hints
from flcl.bench import classifiers, convolutions, generators, loops, peers, tasks
from flcl.bench.figures import Figure
from flcl.bench.sizes import Size

Benchmark = Callable[[Size, int], Iterator[Figure]]

# The first starts other processes: on a TPU this works only before this process uses the chips.
ITEMS: dict[str, Benchmark] = {
    "first_step": loops.first_step,
    "modulated_conv": convolutions.modulated_convolution,
    "phase1_step": generators.phase1_step,
    "phase2_step": generators.phase2_step,
    "sampler": generators.sampler,
    "vit_step": classifiers.vit_step,
    "vit_inference": classifiers.vit_inference,
    "torchcfm_step": peers.torchcfm_step,
    "torchcfm_sampler": peers.torchcfm_sampler,
    "peft_step": peers.peft_step,
    "loader": loops.loader,
    "steps_per_call": loops.steps_per_call,
    "last_task": tasks.last_task,
    "bytes_per_class": tasks.bytes_per_class,
}


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


def summary(name: str) -> str:
    """One line about what an item measures."""
    return (ITEMS[name].__doc__ or "").partition("\n")[0]
