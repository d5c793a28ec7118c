"""Draws images of learned classes from a run, as a picture, as arrays or as files.

Usage:
  flcl sample --workdir=DIR --out=FILE.png|FILE.npz|FOLDER/ [flags]

Examples:
  flcl sample --workdir=runs/digits --classes=3,5 --out=grid.png
  flcl sample --workdir=runs/digits --per_class=500 --out=samples.npz
  flcl sample --workdir=runs/digits --task=2 --seed=7 --solver=dopri5 --out=then.png
  flcl sample --workdir=runs/digits --per_class=500 --out=samples/
  flcl sample --workdir=runs/digits --per_class=500 --format=adm --out=samples.npz

An image depends only on the seed, its class and its index. The npz file holds images uint8
[classes, per_class, height, width, channels], classes, names, and the settings of the sampler.
For the tools of others: a name that ends in / is a folder, which gets a PNG file for each image in
a folder for each class. --format=adm writes the npz file that the evaluation of ADM reads: arr_0
uint8 [images, height, width, channels], and arr_1, the class id of each image.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags

import flcl
from flcl import cli, files
from flcl.shown import shown
from flcl.storage import paths

CONFIG, PROCESSES, WORDS = False, True, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""

    def add(define_kind, name: str, default, text: str) -> None:
        define_kind(name, default, text, flag_values=values)

    add(flags.DEFINE_string, "workdir", None, "folder of a run")
    add(flags.DEFINE_string, "out", None, "file to write: .png or .npz; or a folder: NAME/")
    add(flags.DEFINE_string, "format", "flcl", "of an .npz file: flcl or adm")
    add(flags.DEFINE_boolean, "overwrite", False, "replace existing files")
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
    out = _target(cli.require(given.out, "out", "grid.png"), given.format, given.overwrite)
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
    if out.suffix not in (".png", ".npz"):
        _write_folder(out, samples, _folder_names(run.class_names))
    elif out.suffix == ".png":
        from flcl.report.pictures import plots  # late: it loads matplotlib

        plots.plot_samples(samples.images, samples.names, out)
    elif given.format == "adm":
        # The names that NumPy gives to arrays without one.
        flat = samples.images.reshape(-1, *samples.images.shape[2:])
        kept = {"arr_0": flat, "arr_1": np.repeat(samples.classes, samples.images.shape[1])}
        files.write(out, lambda file: np.savez(file, **kept))
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


def _target(text: str, form: str, overwrite: bool) -> Path:
    """The file or the folder to write; `ValueError` if it is there, or does not fit the format."""
    if form not in ("flcl", "adm"):
        raise ValueError(f"--format={form}: accepted are flcl and adm")
    folder = text.endswith("/") or paths.local(text, "--out").is_dir()
    if form == "adm" and (folder or not text.endswith(".npz")):
        raise ValueError(f"--out={text}: --format=adm writes an .npz file, such as samples.npz")
    if not folder:
        return cli.new_file(text, overwrite, (".png", ".npz"))
    target = paths.local(text, "--out")
    if target.suffix in (".png", ".npz"):
        raise ValueError(f"--out={text}: a folder with the name of a file; choose another name")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ValueError(f"--out={text}: is not empty; choose another name or add --overwrite")
    return target


def _folder_names(names: tuple[str, ...]) -> Mapping[str, str]:
    """A folder name for each class name."""
    from flcl.runs.outside.class_files import file_names  # late: it loads JAX

    return dict(zip(names, file_names(names), strict=True))


def _write_folder(folder: Path, samples, names: Mapping[str, str]) -> None:
    """Writes one PNG file for each image, in a folder for each class."""
    from PIL import Image

    for name, images in zip(samples.names, samples.images, strict=True):
        place = folder / names[name]
        place.mkdir(parents=True, exist_ok=True)
        # Files of an earlier call would be counted as samples of this one.
        for old in place.glob("[0-9][0-9][0-9][0-9][0-9][0-9].png"):
            old.unlink()
        for number, image in enumerate(images):
            grey = image.shape[-1] == 1
            Image.fromarray(image[..., 0] if grey else image).save(place / f"{number:06d}.png")
