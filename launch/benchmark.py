"""Measures the library against itself without its extras, and against PyTorch where installed.

Usage:
  python launch/benchmark.py [--only=NAME,...] [--rounds=N] [--size=SIZE] [--json=FILE|-]

Examples:
  python launch/benchmark.py                             (minutes on two CPU cores)
  python launch/benchmark.py --list
  python launch/benchmark.py --only=phase1_step,sampler --rounds=9
  python launch/benchmark.py --size=full --json=gpu.json (the papers' networks; wants a GPU or TPU)

Every figure is a ratio of two times from the same rounds, this / reference, on one device: less
than 1 is faster than the reference. The two alternate, so that a busy moment of the machine meets
both; the ratio is the median over the rounds, with its quartiles. Bars are the ratios that are good
enough. With --strict the exit code is 1 when one is missed, otherwise 0: a measurement is no
failure.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(sys.path.pop(0)))  # the checkout, instead of this folder

from pathlib import Path

from absl import flags

from flcl import cli


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_list("only", [], "benchmarks to run; default: all. See --list", flag_values=values)
    text = "times that each is measured; the start of a process, which is slow, a fifth as often"
    flags.DEFINE_integer("rounds", 5, text, flag_values=values)
    flags.DEFINE_string("size", "small", "small, medium or full (the papers')", flag_values=values)
    flags.DEFINE_string("json", None, "file to write the figures to; - = print", flag_values=values)
    flags.DEFINE_boolean("list", False, "say what there is, run nothing", flag_values=values)
    flags.DEFINE_boolean("strict", False, "exit code 1 when a bar is missed", flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Runs the benchmarks one after the other, then prints the table."""
    given = arguments.flags
    target = given.json
    if target and target != "-" and not Path(target).parent.is_dir():
        raise ValueError(f"--json={target}: there is no folder {str(Path(target).parent)!r}")
    if given.rounds < 1:
        raise ValueError(f"--rounds={given.rounds}: at least 1 is needed")
    from rich.console import Console

    from flcl import settings
    from flcl.bench import show, sizes, suite  # late: they load JAX
    from flcl.runs.setup import use_compile_cache

    console = Console(stderr=target == "-")
    if not console.is_terminal:
        console.width = show.WIDTH
    if given.list:
        show.print_list(console)
        return
    names, size = suite.select(given.only), sizes.find(given.size)
    use_compile_cache(settings.Runtime())
    figures = []
    for figure in suite.run(names, size, given.rounds, console.print):
        figures.append(figure)
        if target and target != "-":
            show.write_json(figures, target)  # so that an interrupted run leaves what it found
    show.print_table(figures, console)
    if target == "-":
        show.write_json(figures, target)
    if given.strict and any(figure.missed for figure in figures):
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(cli.main(main, doc=__doc__, define=define))
