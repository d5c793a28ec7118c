"""Prints the sizes of a configured model without training it.

Usage:
  python launch/inspect.py --config=FILE[:ARG] [--json] [--config.key=value ...]

Examples:
  python launch/inspect.py --config=configs/funlora_cifar100.py --config.adapter.layers=40-54
  python launch/inspect.py --config=configs/funlora_imagenet100.py --json

JSON keys: trunk_parameters; parameters_per_class; adapted_convolutions, a list of index, name,
shape [height, width, in, out] and parameters per class; bytes_per_task, one number per task.
"""

import os
import sys

# The checkout in place of this folder, whose inspect.py would hide Python's own.
sys.path.insert(0, os.path.dirname(sys.path.pop(0)))

import json

from absl import flags

import flcl
from flcl import cli


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_boolean("json", False, "print JSON instead of a table", flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Describes the method of the config."""
    sizes = flcl.describe(arguments.run)
    if arguments.flags.json:
        print(json.dumps(sizes, indent=2))
    else:
        _print_tables(arguments.run.name, sizes)


def _print_tables(name: str, sizes: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    totals = Table(title=name, show_header=False)
    totals.add_row("trunk parameters", f"{sizes['trunk_parameters']:,}")
    totals.add_row("parameters per class", f"{sizes['parameters_per_class']:,}")
    totals.add_row("adapted convolutions", str(len(sizes["adapted_convolutions"])))
    for task, size in enumerate(sizes["bytes_per_task"], start=1):
        totals.add_row(f"bytes of task {task}", f"{size:,}")
    console.print(totals)
    if sizes["adapted_convolutions"]:
        table = Table("index", "convolution", "kernel", "parameters per class")
        for each in sizes["adapted_convolutions"]:
            shape = "x".join(map(str, each["shape"]))
            table.add_row(str(each["index"]), each["name"], shape, f"{each['parameters']:,}")
        console.print(table)


if __name__ == "__main__":
    sys.exit(cli.main(main, doc=__doc__, define=define, config=True))
