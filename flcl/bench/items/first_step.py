"""The process that `loops.first_step` times: settings on standard input, then one train step."""

import json
import sys

import jax

from flcl.bench.items.loops import Loops
from flcl.settings import bridge


def main() -> None:
    """Builds the step of the first task of a run and runs it once."""
    run = bridge.from_dict(json.load(sys.stdin))
    jax.block_until_ready(Loops(run, 1).real())


if __name__ == "__main__":
    main()
