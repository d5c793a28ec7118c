"""Evaluates a run again with another sampler or another judge; its own results stay as they are.

Usage:
  python launch/evaluate.py --workdir=DIR --out=FILE.json [--num_steps=...] [--oversample=...]

Examples:
  python launch/evaluate.py --workdir=runs/digits --solver=euler --num_steps=10 --out=euler10.json
  python launch/evaluate.py --workdir=runs/digits --oversample=5 --repeats=3 --out=over5.json

Every key of the config's `sample` and `judge` groups is a flag; one that is not given keeps the
value of the run.
"""

import os
import sys

# The checkout in place of this folder, whose inspect.py would hide Python's own.
sys.path.insert(0, os.path.dirname(sys.path.pop(0)))

import dataclasses
import json

from absl import flags

import flcl
from flcl import cli, settings


def define(values: flags.FlagValues) -> None:
    """The flags of this program: its own, and one for each key of `sample` and `judge`."""
    flags.DEFINE_string("workdir", None, "folder of a run", flag_values=values)
    flags.DEFINE_string("out", None, "JSON file to write", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "replace an existing file", flag_values=values)
    kinds = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_boolean}
    for field in (*dataclasses.fields(settings.Sample), *dataclasses.fields(settings.Judge)):
        define_kind = kinds.get(field.type, flags.DEFINE_string)
        define_kind(field.name, None, field.metadata["comment"], flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Evaluates, prints the tables, writes the results."""
    given = arguments.flags
    workdir = cli.require(given.workdir, "workdir", "runs/NAME")
    out = cli.new_file(
        cli.require(given.out, "out", "results_euler.json"), given.overwrite, (".json",)
    )
    run = flcl.open_run(workdir)
    results = run.evaluate(_given(given, settings.Sample), _given(given, settings.Judge))
    from flcl.report import tables  # late, so that a mistake on the command line is told at once

    tables.print_results(results)
    out.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    print(f"written to {out}")


def _given(values: flags.FlagValues, section: type) -> dict:
    names = [field.name for field in dataclasses.fields(section)]
    return {name: values[name].value for name in names if values[name].present}


if __name__ == "__main__":
    sys.exit(cli.main(main, doc=__doc__, define=define))
