"""How this process was started: commands in texts name the programs as the user typed them.

Texts in the code say `flcl train ...`, the command of an installed package. In a checkout without
installation the same program is `python launch/train.py ...`.
"""

import re
import sys
from pathlib import Path

# A command in a text: at the beginning of a line, or inside quotes.
_COMMAND = re.compile(r"(^[ ]*|`)flcl ([a-z]+)\b", re.MULTILINE)


def program(name: str) -> str:
    """The words that start the program `name` in the way in which this process was started.

    `python launch/train.py` from a checkout, `python -m flcl train` after that, `flcl train`
    otherwise: also in Python, where nobody typed a command.
    """
    started = Path(sys.argv[0] if sys.argv else "")
    if started.parent.name == "launch" and started.suffix == ".py":
        return f"python launch/{name}.py"
    if started.name == "__main__.py" and started.parent.name == "flcl":
        return f"python -m flcl {name}"
    return f"flcl {name}"


def as_called(text: str) -> str:
    """`text` with every `flcl NAME` that begins a line, or a quotation, as `program` writes it."""
    return _COMMAND.sub(lambda match: match[1] + program(match[2]), text)
