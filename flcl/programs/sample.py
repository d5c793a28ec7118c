"""Draws images of learned classes from a run, as a picture or as arrays.

Usage:
  flcl sample --workdir=DIR --out=FILE.png|FILE.npz [flags]

Examples:
  flcl sample --workdir=runs/digits --classes=3,5 --out=grid.png
  flcl sample --workdir=runs/digits --per_class=500 --out=samples.npz
  flcl sample --workdir=runs/digits --task=2 --seed=7 --solver=dopri5 --out=then.png

An image depends only on the seed, its class and its index. The npz file holds images uint8
[classes, per_class, height, width, channels], classes, names, and the settings of the sampler.
"""

import numpy as np
from absl import flags

import flcl
from flcl import cli, files
from flcl.shown import shown

CONFIG, PROCESSES, WORDS = False, True, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""

    def add(define_kind, name: str, default, text: str) -> None:
        define_kind(name, default, text, flag_values=values)

    add(flags.DEFINE_string, "workdir", None, "folder of a run")
    add(flags.DEFINE_string, "out", None, "file to write: .png or .npz")
    add(flags.DEFINE_boolean, "overwrite", False, "replace an existing file")
    add(
        flags.DEFINE_list,
        "classes",
        [],
        "ids or names, such as 3,5 or cat,dog; default: all learned classes",
    )
    add(flags.DEFINE_integer, "per_class", 16, "images per class")
    add(flags.DEFINE_integer, "num_steps", None, "steps of the solver; default: as in config")
    add(flags.DEFINE_string, "solver", None, "euler|midpoint|heun|dopri5; default: as in config")
    text = "funlora: classifier-free guidance, 1 = off; default: as in config"
    add(flags.DEFINE_float, "guidance", None, text)
    add(flags.DEFINE_integer, "seed", 0, "seed of the noise")
    add(flags.DEFINE_integer, "task", None, "state of the run after this task; default: the last")


def main(arguments: cli.Arguments) -> None:
    """Samples, then writes the file."""
    given = arguments.flags
    workdir = cli.require(given.workdir, "workdir", "runs/NAME")
    out = cli.new_file(cli.require(given.out, "out", "grid.png"), given.overwrite, (".png", ".npz"))
    run = flcl.open_run(workdir, "generator")
    samples = run.sample(
        given.classes or None,
        per_class=given.per_class,
        num_steps=given.num_steps,
        solver=given.solver,
        guidance=given.guidance,
        seed=given.seed,
        task=given.task,
    )
    if not cli.writes():
        return
    if out.suffix == ".png":
        from flcl.report.pictures import plots  # late: it loads matplotlib

        plots.plot_samples(samples.images, samples.names, out)
    else:
        used = run.settings.sample
        kept = {
            "images": samples.images,
            "classes": np.asarray(samples.classes),
            "names": np.asarray(samples.names),
            "solver": given.solver or used.solver,
            "num_steps": given.num_steps or used.num_steps,
            "guidance": getattr(used, "guidance", 1.0)
            if given.guidance is None
            else given.guidance,
            "seed": given.seed,
            "function_evaluations": samples.function_evaluations,
        }
        files.write(out, lambda file: np.savez_compressed(file, **kept))
    classes, per_class = samples.images.shape[:2]
    calls = samples.function_evaluations
    text = f"{classes} classes x {per_class} images, {calls} function evaluations each"
    print(f"{shown(str(out))}: {text}")
