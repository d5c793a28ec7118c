"""Trains a continual run, or continues one: the same command continues where it was stopped.

Usage:
  flcl train --config=NAME|FILE.py[:ARG] --workdir=DIR [--config.key=value ...]

Examples:
  flcl train --config=funlora_digits --workdir=runs/digits
  flcl train --config=funlora_digits:baseline=joint --workdir=runs/joint
  flcl train --config=funlora_digits --workdir=runs/w --config.model.width=64
  flcl train --config=combined_digits --workdir=runs/combined
  flcl train --config=funlora_digits --help     (lists every key)

The workdir then contains config.json, metrics.jsonl, results.json, report.html and checkpoints/.
With a config of two runs it contains the folders generator/ and classifier/, each with these.
"""

from absl import flags

import flcl
from flcl import cli

CONFIG, PROCESSES, WORDS = True, True, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_string("workdir", None, "folder of the run; made if missing", flag_values=values)
    text = "stop after this task; the command without it goes on; default: after the last one"
    flags.DEFINE_integer("until", None, text, flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Runs the whole task sequence and prints its tables."""
    workdir = cli.require(arguments.flags.workdir, "workdir", "runs/NAME")
    flcl.run(arguments.run, workdir, arguments.flags.until)
