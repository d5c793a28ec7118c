"""Valid configs with some keys changed."""

from flcl import settings
from flcl.settings import bridge


def small(method: str = "funlora"):
    """A valid config: the defaults, with attention where the default image size has it."""
    edited = bridge.defaults(method)
    if issubclass(settings.RUNS[method], settings.GeneratorRun):
        edited.model.attention = (4,)
    else:
        edited.data.image_size, edited.model.variant = 16, "Nano/4"
    return edited


def with_value(name: str, value, method: str = "funlora") -> dict:
    """The values of `small` with one key changed."""
    values = bridge.as_dict(bridge.freeze(small(method)))
    set_value(values, name, value)
    return values


def flat(values: dict, prefix: str = ""):
    """`(dotted name, value)` of every key."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def set_value(values: dict, name: str, value) -> None:
    """Changes or adds the key of a dotted name."""
    *groups, leaf = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[leaf] = value
