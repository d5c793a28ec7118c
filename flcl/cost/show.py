"""The figures of programs that were compiled ahead of time, as tables."""

from rich.console import Console
from rich.table import Table

_GIB = 2**30
_NONE = "-"


def print_precompiled(found: dict, console: Console, projected: bool = False) -> None:
    """Prints what `flcl.precompile` found; `projected`: also weak scaling on paper."""
    console.print(_programs(found))
    for each in found["programs"]:
        largest = each["largest_batch"]
        if largest:
            console.print(f"largest batch of {each['name']}: {largest['how']}", style="dim")
    console.print(
        "FLOPs and collectives inside a loop are counted once; the work of one device is that of "
        "the same program before it is divided and optimised",
        style="dim",
    )
    for reason, names in _uncounted(found).items():
        console.print(f"{', '.join(names)}: {reason}", style="dim")
    if projected:
        for each in found["programs"]:
            if each["projection"]:
                console.print(_projection(each, found["topology"]))
        for line in found["assumptions"]:
            console.print(f"- {line}", style="dim")


def _uncounted(found: dict) -> dict[str, list[str]]:
    """Why work is not known, with the names of the programs."""
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
    for each in found["programs"]:
        table.add_column(each["name"], justify="right")
    for label, cell in _ROWS:
        table.add_row(label, *(cell(each) for each in found["programs"]))
    return table


def _memory(name: str):
    return lambda each: _gib(each["memory"] and each["memory"][name])


def _gib(count: float | None) -> str:
    return _NONE if count is None else f"{count / _GIB:.3f}"


def _collectives(each: dict) -> str:
    lines = [
        f"{one['count']} {one['kind']}, {one['bytes'] / 2**20:.4g} MiB"
        for one in each["collectives"]
    ]
    return "\n".join(lines) or "none"


def _work(each: dict) -> str:
    return _NONE if each["flops_per_device"] is None else f"{each['flops_per_device'] / 1e9:,.4g}"


def _ratio(each: dict) -> str:
    return _NONE if each["replication"] is None else f"{each['replication']:.2f}"


def _largest(each: dict) -> str:
    return f"{each['largest_batch']['images']:,}" if each["largest_batch"] else _NONE


_ROWS = (
    ("global batch, images", lambda each: f"{each['images']:,}"),
    ("arguments, GiB", _memory("arguments")),
    ("outputs, GiB", _memory("outputs")),
    ("  in the place of arguments", _memory("aliased")),
    ("temporaries, GiB", _memory("temporaries")),
    ("peak, GiB", _memory("peak")),
    ("peak and program, GiB", lambda each: _gib(each["required_bytes"])),
    ("fits", lambda each: "yes" if each["fits"] else "NO"),
    ("GFLOP", _work),
    ("work of all devices / of one", _ratio),
    ("collectives", _collectives),
    ("largest global batch", _largest),
    ("seconds to compile here", lambda each: f"{each['seconds']:.0f}"),
)


def _projection(each: dict, topology: str) -> Table:
    chip = topology.partition(":")[0]
    table = Table(title=f"weak scaling of {each['name']} on {chip}, on paper")
    for name in ("chips", "slices", "work, ms", "exchange, ms", "hidden", "exposed"):
        table.add_column(name, justify="right")
    for row in each["projection"]:
        table.add_row(
            f"{row['chips']:,}",
            str(row["slices"]),
            f"{row['work_seconds'] * 1e3:.2f}",
            f"{row['exchange_seconds'] * 1e3:.2f}",
            f"{row['hidden']:.1%}",
            f"{row['exposed']:.1%}",
        )
    return table
