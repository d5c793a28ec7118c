"""Compiles a run's programs for a TPU slice or for GPUs that this machine does not have.

Usage:
  python launch/precompile.py --config=FILE[:ARG] --topology=NAME [--config.key=value ...]

Examples:
  python launch/precompile.py --config=configs/fmlora_cifar100.py --topology=v5e:4x4 --project
  python launch/precompile.py --config=configs/funlora_cifar100.py --topology=v5p:4x4x4 \\
      --config.phase1.batch_size=512 --config.phase2.batch_size=512 --programs=phase2,sampler
  python launch/precompile.py --config=configs/funlora_cifar100.py --topology=h100:8 --json

Topologies: v4, v5e, v5p, v6e and tpu7x with any shape that libtpu knows (extra `aot`), h100 and
h200 with 1 to 8 GPUs (extra `cuda`). Batches of the config are global. Nothing is allocated:
programs are compiled from shapes alone, without data and weights where `stream.capacity` says how
many classes there are.

The table, or the JSON (see `flcl.cost.check`), says what each program asks of a device:
memory, work, exchanges, and the largest global batch that fits. Exit code 1: a program does not
fit, or its devices together do more than 1.5 times the work of one; a line on stderr says which.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(sys.path.pop(0)))  # the checkout, instead of this folder

os.environ["JAX_PLATFORMS"] = "cpu"  # what is here is not asked for
os.environ.setdefault("EQX_ON_ERROR", "nan")  # a callback into this process cannot be compiled

import json

from absl import flags

import flcl
from flcl import cli


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    text = "CHIP:SHAPE, such as v5e:4x4, v5p:4x4x4, h100:8"
    flags.DEFINE_string("topology", None, text, flag_values=values)
    text = "which to compile, of phase1, phase2, sampler and features; all by default"
    flags.DEFINE_list("programs", [], text, flag_values=values)
    text = "compile up to three more batches to find the largest that fits, instead of estimating"
    flags.DEFINE_boolean("batch_search", False, text, flag_values=values)
    text = "print weak scaling on paper, with its assumptions"
    flags.DEFINE_boolean("project", False, text, flag_values=values)
    text = "share of the chip's peak that the projection takes the work to run at"
    flags.DEFINE_float("utilisation", 0.4, text, flag_values=values)
    flags.DEFINE_boolean("json", False, "print JSON instead of tables", flag_values=values)


def main(arguments: cli.Arguments) -> int:
    """Compiles and prints; 1 where something does not fit or is replicated."""
    given = arguments.flags
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
        from rich.console import Console

        from flcl.cost.show import print_precompiled

        print_precompiled(figures, Console(), projected=given.project)
    for line in figures["problems"]:
        print(f"error: {line}", file=sys.stderr)
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(cli.main(main, doc=__doc__, define=define, config=True))
