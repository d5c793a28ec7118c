"""Only the defaults of a method: the commands in `report.html` start from this config.

    flcl train --config=defaults:funlora --config.data.source=digits \
        '--config.model.attention=()' --workdir=runs/again

The argument is the method, such as funlora or fmlora.
"""

from flcl import settings
from flcl.settings import bridge
from flcl.settings.config_file import ArgumentError


def get_config(arg: str = ""):
    """The config of a run; `arg` is the method."""
    if arg not in settings.RUNS:
        raise ArgumentError(f"config argument {arg!r}: a method, one of {', '.join(settings.RUNS)}")
    return bridge.defaults(arg)
