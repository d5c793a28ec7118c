"""Named moments of a tiny run at which its process dies, or is asked to stop.

Run as a program it trains and dies at one of them, for test_kill; `paired.py` does so as one of two
processes.
"""

import gc
import os
import signal
import sys
import time
from pathlib import Path

import jax
import pytest
import tiny

import flcl
from flcl.evaluate.classifiers import ClassifierEvaluation
from flcl.evaluate.generators import GeneratorEvaluation
from flcl.methods.base import STRAIGHTENING
from flcl.report.pictures import canvas
from flcl.runs.saved.checkpoint import Checkpoints
from flcl.runs.statistics.gathering import Statistics
from flcl.stopping import StoppedError
from flcl.training import complexity
from flcl.training.loop import TaskTraining


class Killed(BaseException):
    """The process would be dead now; like Ctrl-C no `except Exception` catches it."""


def die(*_args, **_kwargs):
    """As `kill -9` from outside: no handler, no flush, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


def end(*_args, **_kwargs):
    """As `die`, in a process that has to live on."""
    raise Killed


def end_inside_a_task(patch: pytest.MonkeyPatch) -> None:
    """The next task saves its state, trains, and ends before it is stored."""
    real = TaskTraining.run

    def stopped(training, phase, state, frozen, batches):
        training.save(0, state)
        real(training, phase, state, frozen, batches)
        raise Killed

    patch.setattr(TaskTraining, "run", stopped)


def end_after_straightening(patch: pytest.MonkeyPatch) -> None:
    """The next task trains and makes its paths straight, and ends before it is stored."""
    real = TaskTraining.run

    def stopped(training, phase, state, frozen, batches):
        state = real(training, phase, state, frozen, batches)
        if phase.index == STRAIGHTENING:
            raise Killed
        return state

    patch.setattr(TaskTraining, "run", stopped)


def ask(*_args, **_kwargs):
    """As a cluster that takes the machine away."""
    os.kill(os.getpid(), signal.SIGTERM)
    if jax.process_count() > 1:
        time.sleep(1.5)  # JAX looks for the signal once a second; the others wait in an exchange


def interrupt(*_args, **_kwargs):
    """As a person who presses Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def install(point: str, folder: Path, patch: pytest.MonkeyPatch, kill=die) -> None:
    """Arms one of the moments of a run in `folder`; `kill` is what happens there."""

    def before(target, name, moment, act=kill):
        """Acts when `moment` of the call's arguments is true, before the call."""
        real = getattr(target, name)

        def wrapped(*args, **kwargs):
            if moment(*args, **kwargs):
                act()
            return real(*args, **kwargs)

        patch.setattr(target, name, wrapped)

    def after(target, name, moment):
        """Kills when `moment` of the call's arguments is true, as soon as the call returned."""
        real = getattr(target, name)

        def wrapped(*args, **kwargs):
            out = real(*args, **kwargs)
            if moment(*args, **kwargs):
                kill()
            return out

        patch.setattr(target, name, wrapped)

    def losses(task, step):
        """The moment before the losses up to a step of a task are looked at."""
        return lambda self, _, done: (self.name, done) == (task, step)

    def judging(task):
        return lambda self, _, judged: judged.index == task

    if point == "in task 1, after its saves":
        before(TaskTraining, "_means", losses("task 1", 6))
    elif point == "during a save in task 1":
        # The save goes on in the background: the process dies while files are being written.
        after(Checkpoints, "save_running", lambda self, position, *_: position == 4)
    elif point == "after task 1 is stored":
        after(Checkpoints, "save_task", lambda self, task, _: task == 1)
    elif point == "in the short run before task 2":
        before(complexity, "_held_out", lambda *_: (Path(folder) / "features").exists())
    elif point == "while testing task 2":
        before(ClassifierEvaluation, "_drift", lambda self, group, *_: group.index == 2)
    elif point == "while judging task 1":
        before(GeneratorEvaluation, "_training_set", judging(1))
    elif point == "during the save of task 2":
        before(Checkpoints, "_finish", lambda self, item, step: (item, step) == ("tasks", 2))
    elif point == "while writing results of task 2":
        before(Path, "replace", lambda _, target: Path(target).name == "results.json")
    elif point == "in task 2, after a save":
        before(TaskTraining, "_means", losses("task 2", 4))
    elif point.startswith("before the statistics of task "):
        number = int(point.rsplit(" ", 1)[1])
        before(Statistics, "add", lambda self, before, memory, task: task.index == number)
    elif point == "asked to stop in task 2":
        before(TaskTraining, "_means", losses("task 2", 2), ask)
    elif point == "asked to stop after the last step of task 1":
        before(TaskTraining, "_means", losses("task 1", 6), ask)
    elif point == "asked to stop while judging task 2":
        before(GeneratorEvaluation, "_training_set", judging(2), ask)
    elif point == "interrupted in task 3":
        before(TaskTraining, "_means", losses("task 3", 2), interrupt)
    elif point == "asked to stop while testing task 2":
        before(ClassifierEvaluation, "evaluate", lambda self, _, task: task.index == 2, ask)
    elif point != "never":
        raise SystemExit(f"no such moment: {point}")


if __name__ == "__main__":
    data, folder, point, method = sys.argv[1:]
    gc.set_threshold(100_000, 20, 20)  # as in `conftest`
    canvas.DPI = 30
    install(point, Path(folder), pytest.MonkeyPatch())
    run = tiny.run_of(Path(data), method, runtime__save_every=2, runtime__log_every=1)
    try:
        flcl.run(run, folder)
    except StoppedError as stopped:
        sys.exit(stopped.code)
