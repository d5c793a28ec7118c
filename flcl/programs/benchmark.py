"""Compares time, memory and disk space with plain networks, and with PyTorch if installed.

Usage:
  flcl benchmark [--only=NAME,...] [--rounds=N] [--size=SIZE] [--minutes=N] [--json=FILE|-]

Examples:
  flcl benchmark                             (minutes on two CPU cores)
  flcl benchmark --list
  flcl benchmark --only=phase1_step,sampler --rounds=9
  flcl benchmark --size=full --json=gpu.json (the papers' networks; needs a GPU or TPU)
  flcl benchmark --size=full --minutes=9 --json=gpu.json
  flcl benchmark --profile=phase1            (a table of one train step)

Every figure is a ratio, flcl / reference, on one device: less than 1 is better than the reference.
Both are timed alternately in every round, because a busy moment of the machine then affects both.
The ratio is the median over the rounds, with its quartiles. A bar is a ratio that is good enough.
A line shows each figure as soon as it is found, and --json writes it at once.
With --minutes the most wanted benchmarks come first. One that would take longer than what is left
is left out, and one that fails does not stop the others; a line names each.
With --strict the exit code is 1 if a bar is missed; without it a missed bar is no failure.
"""

import functools

from absl import flags

from flcl import cli, waiting
from flcl.storage import paths

CONFIG, PROCESSES, WORDS = False, False, False
_STEPS = ("phase1", "phase2", "fmlora")


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_list("only", [], "benchmarks to run; default: all. See --list", flag_values=values)
    text = "rounds per benchmark; first_step is slow and takes a fifth of them"
    flags.DEFINE_integer("rounds", 5, text, flag_values=values)
    flags.DEFINE_string("size", "small", "small, medium or full (the papers')", flag_values=values)
    flags.DEFINE_string("json", None, "file for the figures; - prints them", flag_values=values)
    text = "no ratios, but where the time of a train step goes: phase1, phase2, fmlora"
    flags.DEFINE_list("profile", [], text, flag_values=values)
    text = "minutes for all benchmarks together; default: no limit"
    flags.DEFINE_float("minutes", None, text, flag_values=values)
    flags.DEFINE_boolean("list", False, "list the benchmarks and run nothing", flag_values=values)
    flags.DEFINE_boolean("strict", False, "exit code 1 if a bar is missed", flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Runs the benchmarks one after the other, then prints the table."""
    given = arguments.flags
    target = given.json
    if target and target != "-":
        target = paths.local(target, "--json")
        if not target.parent.is_dir():
            raise ValueError(f"--json={target}: there is no folder {str(target.parent)!r}")
    if not 1 <= given.rounds <= 10_000:
        raise ValueError(f"--rounds={given.rounds}: 1 to 10000 are accepted")
    if given.minutes is not None and not 0 < given.minutes <= 100_000:
        raise ValueError(f"--minutes={given.minutes}: above 0 and at most 100000 are accepted")
    if unknown := set(given.profile) - set(_STEPS):
        raise ValueError(f"--profile={min(unknown)}: accepted are {', '.join(_STEPS)}")
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
    say = functools.partial(console.print, highlight=False, soft_wrap=True)
    # What is compiled is told where the other lines are: stdout may be the JSON.
    with waiting.told(say):
        _measure(given, names, size, target, console, say)


def _measure(given, names, size, target, console, say) -> None:
    """Profiles or measures, as the flags say."""
    from flcl.bench import profile as profiles
    from flcl.bench import show, suite

    if given.profile:
        values = []
        for program in given.profile:
            profile = profiles.profile(program, size)
            show.print_profile(profile, console)
            values += show.profile_json(profile)
            if target:
                show.write_json(values, target)
        return
    if given.minutes is None:
        found = suite.run(names, size, given.rounds, say)
    else:
        names = suite.most_wanted(names)
        found = suite.run_within(names, size, given.rounds, say, given.minutes)
    _tell(found, target, given.strict, console, say)


def _tell(found, target, strict: bool, console, say) -> None:
    """Shows and stores each figure as soon as it is found, then prints the table."""
    from flcl.bench import show

    figures = []
    for figure in found:
        figures.append(figure)
        say(show.line(figure))
        if target and target != "-":
            # An interrupted run keeps its figures.
            show.write_json([each.as_dict() for each in figures], target)
    show.print_table(figures, console)
    if target == "-":
        show.write_json([each.as_dict() for each in figures], target)
    if strict and any(figure.missed for figure in figures):
        raise SystemExit(1)
