"""How a key is declared: its default, its type and the one comment that explains it."""

import dataclasses


def key(default, comment: str):
    """A config key: its default and its comment (shown by `launch/train.py --help`)."""
    return dataclasses.field(default=default, metadata={"comment": comment})


def section(cls: type):
    """A nested group of keys, built from the defaults of `cls`."""
    return dataclasses.field(default_factory=cls)
