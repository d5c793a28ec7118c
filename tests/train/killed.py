"""Runs a tiny task sequence and kills its own process at a named moment. Started by test_kill."""

import os
import signal
import sys
from pathlib import Path

import tiny

import flcl
from flcl.train import loop, preliminary
from flcl.train.checkpoint import Checkpoints
from flcl.train.classifying import ClassifierEvaluation
from flcl.train.judging import GeneratorEvaluation


def die(*_args, **_kwargs):
    """As `kill -9` from outside: no handler, no flush, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(target, name, moment):
    """Kills when `moment` of the call's arguments is true, before the call."""
    real = getattr(target, name)

    def wrapped(*args, **kwargs):
        if moment(*args, **kwargs):
            die()
        return real(*args, **kwargs)

    setattr(target, name, wrapped)


def after(target, name, moment):
    """Kills when `moment` of the call's arguments is true, as soon as the call returned."""
    real = getattr(target, name)

    def wrapped(*args, **kwargs):
        out = real(*args, **kwargs)
        if moment(*args, **kwargs):
            die()
        return out

    setattr(target, name, wrapped)


def install(point: str) -> None:
    """Arms one of the moments."""
    if point == "in task 1, after its saves":
        before(loop, "_drain", lambda _p, done, name, _r: name == "task 1" and done == 6)
    elif point == "during a save in task 1":
        # The save goes on in the background: the process dies while files are being written.
        after(Checkpoints, "save_running", lambda self, position, *_: position == 4)
    elif point == "after task 1 is stored":
        after(Checkpoints, "save_task", lambda self, task, _: task == 1)
    elif point == "in the short run before task 2":
        before(preliminary, "_held_out", lambda *_: (Path(folder) / "features").exists())
    elif point == "while testing task 2":
        before(ClassifierEvaluation, "_drift", lambda self, group, *_: group.index == 2)
    elif point == "while judging task 1":
        before(GeneratorEvaluation, "_training_set", lambda self, _i, _l, task: task.index == 1)
    elif point == "during the save of task 2":
        before(Checkpoints, "_finish", lambda self, item, step: (item, step) == ("tasks", 2))
    elif point == "while writing results of task 2":
        real = Path.replace

        def replace(self, target):
            if Path(target).name == "results.json":
                die()
            return real(self, target)

        Path.replace = replace
    elif point != "never":
        raise SystemExit(f"no such moment: {point}")


if __name__ == "__main__":
    data, folder, point, method = sys.argv[1:]
    install(point)
    make = tiny.classifier_of if method == "fmlora" else tiny.settings_of
    flcl.run(make(Path(data), method, runtime__save_every=2), folder)
