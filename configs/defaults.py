"""The defaults of a method and nothing else: `report.html` gives commands that start from here.

    python launch/train.py --config=configs/defaults.py:funlora --config.data.source=digits \
        --workdir=runs/again

Argument: the method, such as funlora or fmlora.
"""

from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is the method."""
    return bridge.defaults(arg)
