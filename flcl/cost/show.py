"""The figures of programs that were compiled ahead of time, as tables."""

from rich.console import Console
from rich.table import Table

_GIB = 2**30
_NONE = "-"


def print_precompiled(found: dict, console: Console, projected: bool = False) -> None:
    """Prints the result of `flcl.precompile`; `projected`: also the computed weak scaling."""
    console.print(_programs(found))
    for program in found["programs"]:
        largest = program["largest_batch"]
        if largest:
            console.print(f"largest batch of {program['name']}: {largest['how']}", style="dim")
    console.print(
        "FLOPs and collectives inside a loop are counted once; the work of one device is that of "
        "the same program before it is divided and optimised",
        style="dim",
    )
    for reason, names in _uncounted(found).items():
        console.print(f"{', '.join(names)}: {reason}", style="dim")
    if projected:
        for program in found["programs"]:
            if program["projection"]:
                console.print(_projection(program, found["topology"]))
        for line in found["assumptions"]:
            console.print(f"- {line}", style="dim")


def _uncounted(found: dict) -> dict[str, list[str]]:
    """The reasons why work is unknown, with the names of the programs."""
    reasons: dict[str, list[str]] = {}
    for program in found["programs"]:
        if program["uncounted"]:
            reasons.setdefault(program["uncounted"], []).append(program["name"])
    return reasons


def _programs(found: dict) -> Table:
    mesh = " x ".join(f"{size} {name}" for name, size in found["mesh"].items())
    usable, hbm = found["usable_bytes"] / _GIB, found["hbm_bytes"] / _GIB
    table = Table(
        title=f"{found['name']} on {found['topology']}: {found['devices']} devices ({mesh}), "
        f"{usable:.2f} of {hbm:.0f} GiB usable on each"
    )
    table.add_column("on each device")
    for program in found["programs"]:
        table.add_column(program["name"], justify="right")
    for label, cell in _ROWS:
        table.add_row(label, *(cell(program) for program in found["programs"]))
    return table


def _memory(name: str):
    return lambda program: _gib(program["memory"] and program["memory"][name])


def _gib(count: float | None) -> str:
    return _NONE if count is None else f"{count / _GIB:.3f}"


def _collectives(program: dict) -> str:
    lines = [
        f"{exchange['count']} {exchange['kind']}, {exchange['bytes'] / 2**20:.4g} MiB"
        for exchange in program["collectives"]
    ]
    return "\n".join(lines) or "none"


def _work(program: dict) -> str:
    return (
        _NONE
        if program["flops_per_device"] is None
        else f"{program['flops_per_device'] / 1e9:,.4g}"
    )


def _ratio(program: dict) -> str:
    return _NONE if program["replication"] is None else f"{program['replication']:.2f}"


def _largest(program: dict) -> str:
    return f"{program['largest_batch']['images']:,}" if program["largest_batch"] else _NONE


_ROWS = (
    ("global batch, images", lambda program: f"{program['images']:,}"),
    ("arguments, GiB", _memory("arguments")),
    ("outputs, GiB", _memory("outputs")),
    ("  in the place of arguments", _memory("aliased")),
    ("temporaries, GiB", _memory("temporaries")),
    ("peak, GiB", _memory("peak")),
    ("peak and program, GiB", lambda program: _gib(program["required_bytes"])),
    ("fits", lambda program: "yes" if program["fits"] else "NO"),
    ("GFLOP", _work),
    ("work of all devices / of one", _ratio),
    ("collectives", _collectives),
    ("largest global batch", _largest),
    ("seconds to compile here", lambda program: f"{program['seconds']:.0f}"),
)


def _projection(program: dict, topology: str) -> Table:
    chip = topology.partition(":")[0]
    table = Table(title=f"weak scaling of {program['name']} on {chip}, on paper")
    for name in ("chips", "slices", "work, ms", "exchange, ms", "hidden", "exposed"):
        table.add_column(name, justify="right")
    for row in program["projection"]:
        table.add_row(
            f"{row['chips']:,}",
            str(row["slices"]),
            f"{row['work_seconds'] * 1e3:.2f}",
            f"{row['exchange_seconds'] * 1e3:.2f}",
            f"{row['hidden']:.1%}",
            f"{row['exposed']:.1%}",
        )
    return table
