"""The config of a tiny run, for the command line: `config.py:METHOD`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import tiny

from flcl.settings import bridge


def get_config(arg: str = "funlora"):
    """The keys of `tiny.py`, with saves and records at every few steps."""
    run = tiny.run_of(Path("six.npz"), arg, runtime__save_every=2, runtime__log_every=1)
    config = bridge.defaults(arg)
    values = {name: bridge.value(run, name) for name, _ in bridge.keys(type(run))}
    config.update_from_flattened_dict(values)
    return config
