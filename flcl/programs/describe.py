"""Prints the sizes of a configured model without training it.

Usage:
  flcl describe --config=NAME|FILE.py[:ARG] [--json] [--config.key=value ...]

Examples:
  flcl describe --config=funlora_cifar100 --config.adapter.layers=40-54
  flcl describe --config=funlora_imagenet100 --json
  flcl describe --config=fmlora_cifar100 --flops

JSON keys for a generator: trunk_parameters; parameters_per_class; adapted_convolutions, a list with
index, name, shape [height, width, in, out] and parameters per class; bytes_per_task, one number per
task. JSON keys for a classifier: trunk_parameters; shared_parameters; parameters_per_task;
head_parameters; prompt_parameters; statistics_bytes, the bytes of the statistics of all heads,
per_class and once; trained_parameters and bytes_per_task, one number per task. With --flops also
step_flops, the FLOPs of the compiled training step of each phase, and share_of_finetuning, the same
relative to training every parameter.
"""

import json

from absl import flags

import flcl
from flcl import cli

CONFIG, PROCESSES, WORDS = True, False, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_boolean("json", False, "print JSON instead of a table", flag_values=values)
    text = "classifier: compile the training step and count its work (minutes for a large ViT)"
    flags.DEFINE_boolean("flops", False, text, flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Prints the sizes of the configured model."""
    sizes = flcl.describe(arguments.run)
    if arguments.flags.flops:
        sizes |= flcl.step_flops(arguments.run)
    if arguments.flags.json:
        print(json.dumps(sizes, indent=2))
    else:
        _print_tables(arguments.run.name, sizes)


def _print_tables(name: str, sizes: dict) -> None:
    from rich.table import Table

    from flcl.report import reading
    from flcl.report.console import Console

    console = Console()
    totals = Table(title=name, show_header=False)
    convolutions = sizes.pop("adapted_convolutions", [])
    if convolutions:
        totals.add_row("adapted convolutions", str(len(convolutions)))
    statistics = sizes.pop("statistics_bytes", None)
    for key, value in sizes.items():
        label, values = key.replace("_", " "), value if isinstance(value, list) else [value]
        for number, size in enumerate(values, start=1):
            name = f"{label.removesuffix(' per task')}, task {number}" if len(values) > 1 else label
            totals.add_row(name, f"{size:,}" if isinstance(size, int) else f"{size:.4g}")
    if statistics:
        totals.add_row("statistics", reading.statistics(statistics))
    console.print(totals)
    if convolutions:
        table = Table("index", "convolution", "kernel", "parameters per class")
        for entry in convolutions:
            shape = "x".join(map(str, entry["shape"]))
            table.add_row(str(entry["index"]), entry["name"], shape, f"{entry['parameters']:,}")
        console.print(table)
