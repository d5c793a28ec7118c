"""Trains a continual run, or continues one: the same command continues where it was stopped.

Usage:
  python launch/train.py --config=FILE[:ARG] --workdir=DIR [--config.key=value ...]

Examples:
  python launch/train.py --config=configs/funlora_digits.py --workdir=runs/digits
  python launch/train.py --config=configs/funlora_digits.py:baseline=joint --workdir=runs/joint
  python launch/train.py --config=configs/funlora_digits.py --workdir=runs/w --config.model.width=64
  python launch/train.py --config=configs/combined_digits.py --workdir=runs/combined
  python launch/train.py --config=configs/funlora_digits.py --help     (lists every key)

The workdir then contains config.json, metrics.jsonl, results.json, report.html and checkpoints/.
With a config of two runs it contains the folders generator/ and classifier/, each with these.
"""

import _start  # noqa: F401 # isort: skip
import sys

from absl import flags

import flcl
from flcl import cli


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_string("workdir", None, "folder of the run; made if missing", flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Runs the whole task sequence and prints its tables."""
    workdir = cli.require(arguments.flags.workdir, "workdir", "runs/NAME")
    flcl.run(arguments.run, workdir)


if __name__ == "__main__":
    sys.exit(cli.main(main, doc=__doc__, define=define, config=True, distributed=True))
