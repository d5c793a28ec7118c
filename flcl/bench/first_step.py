"""The process that `loops.first_step` times: settings on standard input, then one train step."""

import json
import sys

import jax

from flcl import config
from flcl.bench.loops import Loops


def main() -> None:
    """Builds the step of a run's first task and makes one."""
    run = config.from_dict(json.load(sys.stdin))
    jax.block_until_ready(Loops(run, 1).real())


if __name__ == "__main__":
    main()
