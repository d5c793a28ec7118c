"""Compiles a run's programs for a TPU slice or for GPUs that this machine does not have.

Usage:
  flcl precompile --config=NAME|FILE.py[:ARG] --topology=NAME [--config.key=value ...]

Examples:
  flcl precompile --config=fmlora_cifar100 --topology=v5e:4x4 --project
  flcl precompile --config=funlora_cifar100 --topology=v5p:4x4x4 \\
      --config.phase1.batch_size=512 --config.phase2.batch_size=512 --programs=phase2,sampler
  flcl precompile --config=funlora_cifar100 --topology=h100:8 --json

Topologies: v4, v5e, v5p, v6e and tpu7x with any shape that libtpu knows (extra `aot`), h100 and
h200 with 1 to 8 GPUs (extra `cuda`). Batch sizes in the config are global. No array is allocated:
programs are compiled from shapes alone. Data and weights are not needed if `stream.capacity` gives
the number of classes.

The table, or the JSON (see `flcl.cost.check`), says what each program needs on a device: memory,
work, exchanges, and the largest global batch that fits. The exit code is 1 if a program does not
fit, or if its devices together do more than 1.5 times the work of one; a line on stderr names it.
"""

import json
import os
import sys

from absl import flags

import flcl
from flcl import cli
from flcl.shown import shown

CONFIG, PROCESSES, WORDS = True, False, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    text = "CHIP:SHAPE, such as v5e:4x4, v5p:4x4x4, h100:8"
    flags.DEFINE_string("topology", None, text, flag_values=values)
    text = "programs to compile: phase1, phase2, sampler, features; default: all"
    flags.DEFINE_list("programs", [], text, flag_values=values)
    text = "find the largest batch by compiling up to three more programs, not by estimating it"
    flags.DEFINE_boolean("batch_search", False, text, flag_values=values)
    text = "print weak scaling on paper, with its assumptions"
    flags.DEFINE_boolean("project", False, text, flag_values=values)
    text = "projection: share of the chip's peak speed at which the work runs"
    flags.DEFINE_float("utilisation", 0.4, text, flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON instead of tables", flag_values=values)


def main(arguments: cli.Arguments) -> int:
    """Compiles and prints; returns 1 if a program does not fit or repeats work."""
    given = arguments.flags
    # Before JAX is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"  # devices of this machine are not used
    os.environ.setdefault("EQX_ON_ERROR", "nan")  # a callback into this process cannot be compiled
    figures = flcl.precompile(
        arguments.run,
        cli.require(given.topology, "topology", "v5e:4x4"),
        programs=tuple(given.programs),
        batch_search=given.batch_search,
        utilisation=given.utilisation,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        from flcl.cost.show import print_precompiled
        from flcl.report.console import Console

        print_precompiled(figures, Console(), projected=given.project)
    for line in figures["problems"]:
        print(f"error: {shown(line)}", file=sys.stderr)
    return 1 if figures["problems"] else 0
