"""Only the defaults of a method: the commands in `report.html` start from this config.

    python launch/train.py --config=configs/defaults.py:funlora --config.data.source=digits \
        --workdir=runs/again

The argument is the method, such as funlora or fmlora.
"""

from flcl.settings import bridge


def get_config(arg: str = ""):
    """The config of a run; `arg` is the method."""
    return bridge.defaults(arg)
