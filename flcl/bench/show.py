"""Shows figures as tables and writes them as JSON."""

import json
import os
import platform
from collections.abc import Sequence

import jax
from rich.console import Console
from rich.table import Table

from flcl import files
from flcl.bench.figures import BARS, Figure
from flcl.bench.profile import Profile
from flcl.bench.suite import ITEMS, summary

STANDARD_OUTPUT = "-"
WIDTH = 140
"""Width of a table in a file or a pipe, in characters."""

_COLUMNS = (
    "benchmark",
    "ratio",
    "quartiles",
    "bar",
    "seconds",
    "reference",
    "steps/s",
    "images/s",
    "MFU",
    "memory",
    "rounds",
)


def write_json(values: Sequence[dict], target: str) -> None:
    """Writes a JSON list of figures to a file or, for `-`, to standard output."""
    text = json.dumps(list(values), indent=2) + "\n"
    if target == STANDARD_OUTPUT:
        print(text, end="")
    else:
        files.write(target, text)  # whole, because the process may be killed at any moment


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """Prints ratios with quartiles, bars and seconds, and the number of bars that were reached."""
    table = Table(title=machine())
    rows = [_row(figure) for figure in figures]
    # Empty columns are left out, because they make the others too narrow.
    shown = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    for place in shown:
        table.add_column(_COLUMNS[place], justify="right" if place else "left", no_wrap=True)
    for figure, row in zip(figures, rows, strict=True):
        table.add_row(*[row[place] for place in shown], style="red" if figure.missed else None)
    console.print(table)
    for figure in figures:
        if figure.note:
            console.print(f"{figure.name}: {figure.note}", highlight=False, soft_wrap=True)
    barred = [figure for figure in figures if figure.bar is not None]
    missed = [figure.name for figure in barred if figure.missed]
    text = f"{len(barred) - len(missed)} of {len(barred)} bars reached"
    console.print(text + (f"; missed: {', '.join(missed)}" if missed else ""), soft_wrap=True)


def print_profile(profile: Profile, console: Console) -> None:
    """Prints the time of a train step by group, the longest first."""
    console.print(f"{profile.program}: {machine()}", highlight=False, soft_wrap=True)
    table = Table("part of the step")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    seconds, shares = profile.seconds, profile.shares
    for name in sorted(seconds, key=seconds.get, reverse=True):
        table.add_row(name, f"{1e3 * seconds[name]:.3f}", f"{shares[name]:.1%}")
    console.print(table)
    console.print(
        f"one step of {profile.devices} device{'s' * (profile.devices > 1)}, summed over devices "
        f"and threads; {1e3 * profile.wall:.1f} ms on the clock while the profiler was on",
        highlight=False,
        soft_wrap=True,
    )


def profile_json(profile: Profile) -> list[dict]:
    """A profile as JSON values: an entry for each group."""
    shares, name = profile.shares, f"profile/{profile.program}"
    return [
        {"name": f"{name}/{group}", "seconds": seconds, "share": shares[group]}
        for group, seconds in profile.seconds.items()
    ]


def line(figure: Figure) -> str:
    """One line about a figure that has just been found."""
    pairs = zip(_COLUMNS[1:-1], _row(figure)[1:-1], strict=True)
    told = ", ".join(f"{name} {value}" for name, value in pairs if value)
    return f"  {figure.name}: {told}"


def print_list(console: Console) -> None:
    """Prints every benchmark with its bar and its meaning."""
    table = Table("benchmark", "bar", "what")
    for name in ITEMS:
        bars = [bar for key, bar in BARS.items() if key.partition("/")[0] == name]
        table.add_row(name, ", ".join(f"{bar:.2f}" for bar in bars), summary(name))
    console.print(table)


def machine() -> str:
    """Device, processor, cores and versions, for the title of a table."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{device.platform} ({kind}), {os.cpu_count()} cores, JAX {jax.__version__}"


def _row(figure: Figure) -> list[str]:
    low, high = figure.ratio_low, figure.ratio_high
    return [
        figure.name,
        f"{figure.ratio:.3f}",
        f"{low:.3f} - {high:.3f}" if figure.rounds > 1 else "",
        _number(figure.bar, ".2f"),
        _number(figure.median_seconds, ".4g"),
        _number(figure.reference_seconds, ".4g"),
        _number(figure.steps_per_second, ",.4g"),
        _number(figure.images_per_second, ",.4g"),
        _number(figure.mfu, ".1%"),
        _number(figure.memory_ratio, ".2f"),
        str(figure.rounds),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
