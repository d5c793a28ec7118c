"""The kinds of trials by name. A new kind is one function, one line here and one in run.py.

A kind takes a `Trial` and returns how it ended: `EQUAL`, `REPAIRED`, `LINE` or `ACCEPTED`. It
raises `Fault` for everything else; any other exception counts as a fault, too.
"""

from campaign.kinds import damaged, folders, inputs, interrupted, pictures, stranger, weights

KINDS = {
    "array": pictures.array,
    "value": inputs.value,
    "source": inputs.source,
    "folder": folders.folder,
    "weights": weights.weights,
    "archive": inputs.archive,
    "config_file": inputs.config_file,
    "damage": damaged.damage,
    "stranger": stranger.stranger,
    "kill": interrupted.kill,
    "stop": interrupted.stop,
    "disk": interrupted.disk,
    "process": interrupted.process,
}
