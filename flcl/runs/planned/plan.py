"""A run that has to end in some minutes: its first call measures, and chooses its lengths.

The choice is stored once, in `plan.json` and in the `config.json` of the run. So the results stay
a function of the stored settings: the same command, also on another machine, goes on with them.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

import jax
import numpy as np

from flcl import methods, settings
from flcl.data.encoded.check import Progress
from flcl.devices import hosts
from flcl.evaluate.judging import Judging
from flcl.evaluate.lower import silent
from flcl.runs.planned import fitting, needs, stored
from flcl.runs.planned.fitting import FEWEST_EPOCHS, FEWEST_IMAGES, Least, Shares
from flcl.runs.planned.measuring import Measured, count_of, measure
from flcl.runs.saved import workdir as workdirs
from flcl.runs.setup import Setup


def planned(setup: Setup, workdir: Path, began: float, progress: Progress) -> Setup:
    """The setup with the lengths of `runtime.minutes`; unchanged without that key.

    began: the value of `time.monotonic` when the run began. Every process of a run calls this.
    Raises `ValueError` for too few minutes, and for a run that began with other lengths or without
    a plan.
    """
    minutes, run = setup.run.runtime.minutes, setup.run
    if not minutes:
        return setup
    with contextlib.ExitStack() as held:
        # In use, or not writable: before minutes are spent. And nobody else chooses meanwhile.
        with hosts.together():
            if hosts.is_main():
                held.enter_context(workdirs.locked(workdir))
        chosen = hosts.read_by_main(
            lambda: stored.lengths(workdir, run, begun=workdirs.has_saves(workdir))
        )
        if chosen is None:
            return _measured(setup, workdir, began, progress)
    return _with_lengths(setup, stored.with_lengths(run, chosen), "the lengths of its first call")


def _measured(setup: Setup, workdir: Path, began: float, progress: Progress) -> Setup:
    run, minutes = setup.run, setup.run.runtime.minutes
    hosts.connect(setup.mesh)
    with jax.set_mesh(setup.mesh):
        show = progress(f"measuring for a run of {minutes:g} minutes", count_of(setup))
        seconds = measure(setup, show)
    # The clocks of other processes do not count.
    chosen = hosts.read_by_main(lambda: _choose(setup, workdir, seconds, began))
    return _with_lengths(
        setup, stored.with_lengths(run, chosen), f"planned for {minutes:g} minutes"
    )


def _choose(setup: Setup, workdir: Path, seconds: Measured, began: float) -> dict[str, float]:
    """The lengths that fit, which are stored."""
    run, needed = setup.run, needs.of(setup, seconds)
    spent = time.monotonic() - began
    needed = dataclasses.replace(needed, fixed=needed.fixed + spent)
    shares = fitting.fit(run.runtime.minutes, needed, _least(setup))
    chosen = _lengths(setup, shares)
    plan = stored.Plan(
        minutes=run.runtime.minutes,
        settings=stored.identity(run),
        asked=stored.planned_keys(run),
        chosen=chosen,
        seconds=_told(seconds, needed, spent),
    )
    stored.write(workdir, plan)
    return chosen


def _with_lengths(setup: Setup, run: settings.Run, why: str) -> Setup:
    method = methods.shared(run, setup.data.stream.sized(len(setup.data.stream.tasks)))
    lengths = ", ".join(f"{k}={v:g}" for k, v in stored.planned_keys(run).items())
    note = "; ".join(filter(None, [setup.note, f"{why}: {lengths}"]))
    return dataclasses.replace(setup, run=run, method=method, note=note)


def _least(setup: Setup) -> Least:
    """The smallest shares: a task has a step, and a generator's task its whole warm-up."""
    tasks = [task for task in setup.data.stream.tasks if setup.steps(task)]
    steps = max((1 / setup.steps(task) for task in tasks), default=0.0)
    run = setup.run
    if not isinstance(run, settings.GeneratorRun):
        return Least(steps)
    phases = [(run.phase1, run.phase2)[setup.method.phase(task) - 1] for task in tasks]
    steps = max([steps, *(phase.warmup_steps / phase.steps for phase in phases)])
    epochs = min(1.0, FEWEST_EPOCHS / run.judge.epochs)
    return Least(steps, epochs, min(1.0, FEWEST_IMAGES / _images_per_class(setup)))


def _images_per_class(setup: Setup) -> float:
    """Generated images of a class, the mean over classes."""
    judging = Judging(setup.run, setup.data, setup.mesh, silent)
    return max(1.0, float(np.mean([judging.plain_count(label) for label in judging.counts])))


def _lengths(setup: Setup, shares: Shares) -> dict[str, float]:
    """The planned keys: the settings' own values times the shares that fit."""
    lengths = dict(stored.planned_keys(setup.run))
    for name in ("phase1.steps", "phase2.steps"):
        if name in lengths and shares.steps < 1:
            section = getattr(setup.run, name.partition(".")[0])
            lengths[name] = max(1, section.warmup_steps, int(shares.steps * lengths[name]))
    for name in ("train.epochs", "train.first_epochs"):
        if name in lengths:
            lengths[name] = lengths[name] * shares.steps
    if "judge.epochs" in lengths and shares.epochs < 1:
        lengths["judge.epochs"] = round(lengths["judge.epochs"] * shares.epochs, 2)
    if "judge.images_per_class" in lengths and shares.images < 1:
        images = shares.images * _images_per_class(setup)
        lengths["judge.images_per_class"] = max(1, int(images))
    return lengths


def _told(seconds: Measured, needed: fitting.Needs, spent: float) -> dict[str, float]:
    """What was measured, for people: seconds of each part, and of the run before it was planned."""
    parts = {f"phase{index}_step": each for index, each in seconds.phases.items()}
    parts |= dict(zip(Measured._fields[1:], seconds[1:], strict=True))
    told = {name: each.each for name, each in parts.items() if any(each)}
    told |= {f"{name}_first": each.making for name, each in parts.items() if any(each)}
    told |= {f"run_{name}": value for name, value in dataclasses.asdict(needed).items()}
    return {name: float(f"{value:.4g}") for name, value in {**told, "spent": spent}.items()}
