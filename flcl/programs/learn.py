"""Teaches a finished run what was not planned: new classes, or a new domain.

Usage:
  flcl learn --workdir=DIR --data=SOURCE [--config.key=value ...]
  flcl learn --workdir=DIR --only=TASK [--out=DIR]

Examples:
  flcl learn --workdir=runs/mine --data=folder:/new/images
  flcl learn --workdir=runs/mine --data=npz:new.npz --config.phase2.steps=500
  flcl learn --workdir=runs/mine --help       (lists the keys that the next task may change)
  flcl learn --workdir=runs/mine --only=3     (one planned task, independent of the others)

The classes of the source that the run does not know are its next task; with
stream.scenario=dil the source is its next domain. The same command continues what was stopped. No
image of an earlier task is needed: a task whose images are not there any more is not tested.

--only trains one planned task of a generator on the trunk of task 1, and writes its classes to
files for `flcl classes import`; it needs adapter.warm_start=first or none.
"""

from absl import flags

import flcl
from flcl import cli
from flcl.settings import bridge

CONFIG, PROCESSES, WORDS = cli.STORED, True, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    add = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "folder of a run that has finished its tasks", **add)
    text = "source of the new task, in the form of data.source: folder:PATH, npz:PATH, ..."
    flags.DEFINE_string("data", None, text, **add)
    text = "new classes whose names differ from known ones only in case or Unicode form"
    flags.DEFINE_list("distinct", [], text, **add)
    text = "number of a planned task: train it alone, and write its classes to files"
    flags.DEFINE_integer("only", None, text, **add)
    flags.DEFINE_string("out", None, "only: folder to write; default: WORKDIR/only/task_NN", **add)


def main(arguments: cli.Arguments) -> None:
    """Learns one task and prints the tables, or trains one task alone."""
    given = arguments.flags
    if given.only is not None:
        _alone(arguments)
        return
    data = cli.require(given.data, "data", "folder:/new/images")
    if given.out is not None:
        raise ValueError(f"--out={given.out}: it is read only with --only")
    changes = {name: bridge.value(arguments.run, name) for name in arguments.changed}
    flcl.open_run(given.workdir).learn(data, changes, distinct=given.distinct)


def _alone(arguments: cli.Arguments) -> None:
    given = arguments.flags
    for name in ("data", "distinct"):
        if given[name].present:
            raise ValueError(f"--{name} and --only: a planned task has its source already")
    if arguments.changed:
        raise ValueError(
            f"--config.{arguments.changed[0]}: a planned task is trained with the stored keys"
        )
    run = flcl.open_run(given.workdir, "generator")
    written = run.learn_only(given.only, given.out)
    if cli.writes():
        for path in written:
            print(f"{path}: {path.stat().st_size:,} bytes")
