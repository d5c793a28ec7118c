"""Draws what a finished run shows about its method, with the numbers as CSV beside each picture.

Usage:
  flcl analyse --workdir=DIR [--only=NAME,...] [--out=FOLDER] [flags]

Examples:
  flcl analyse --workdir=runs/digits
  flcl analyse --workdir=runs/digits --only=importance --top=15
  flcl analyse --workdir=runs/digits --evaluations --seeds=0,1,2
  flcl analyse --workdir=runs/digits --only=oversampling --factors=1,2,5,10 --seeds=0,1,2

Of FunLoRA: ranks (of F, for each class and convolution, after every task), training_ranks (while
the tasks train, of a run with adapter.record_ranks), alphas (alpha_i and omega_i), importance (and
what adapter.layers=top:K takes), parameters (last accuracy, parameters and bytes of a class). Of
every generator, if they are named, because they draw and judge samples: oversampling (last accuracy
with more samples of each class) and evaluations (accuracy, fidelity, distances and recall by
solver, grid and function evaluations). They need the data of the run; if they are stopped, the same
command continues. Of classifiers: ranks (of each task, and of the sum of all updates in each map),
drift, prompt (its length after every task).

Each gets NAME.csv and, except parameters, NAME.png in WORKDIR/analysis. Nothing else of the run
changes, only report.html gets links to them.
"""

from absl import flags

import flcl
from flcl import cli
from flcl.shown import shown
from flcl.storage import paths

CONFIG, PROCESSES, WORDS = False, False, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    add = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "folder of a run", **add)
    text = "analyses by name; default: all that the run has and that take seconds"
    flags.DEFINE_list("only", [], text, **add)
    flags.DEFINE_boolean("evaluations", False, "the same as --only=evaluations", **add)
    text = "folder to write; default: WORKDIR/analysis"
    flags.DEFINE_string("out", None, text, **add)
    text = "evaluations, oversampling: seeds of noise and judges; default: the seed of the run"
    flags.DEFINE_list("seeds", [], text, **add)
    text = "oversampling: samples of a class, relative to the run; default: 1,2,5,10"
    flags.DEFINE_list("factors", [], text, **add)
    text = "evaluations: solvers; default: euler,midpoint,heun,dopri5"
    flags.DEFINE_list("solvers", [], text, **add)
    text = "evaluations: function evaluations of an image; default: 1,2,4,8,16,40,100"
    flags.DEFINE_list("budgets", [], text, **add)
    text = "evaluations: values of sample.grid; default: uniform,cosine,power:2"
    flags.DEFINE_list("grids", [], text, **add)
    text = "importance: K of adapter.layers=top:K; default: as many as are adapted, or 15 of 65"
    flags.DEFINE_integer("top", 0, text, lower_bound=0, **add)


def main(arguments: cli.Arguments) -> None:
    """Makes the analyses one after the other, and prints a table of each."""
    given = arguments.flags
    workdir = cli.require(given.workdir, "workdir", "runs/NAME")
    out = paths.folder(given.out, "--out") if given.out else None
    numbers = {
        "seeds": _numbers(given, "seeds", int),
        "factors": _numbers(given, "factors", float),
        "budgets": _numbers(given, "budgets", int),
        "grids": tuple(given.grids),
        "solvers": tuple(given.solvers),
    }
    run = flcl.open_run(workdir)
    from flcl.analysis import items  # late: it loads JAX
    from flcl.report import page

    asked = {name: values for name, values in numbers.items() if values}
    options = items.Options(**asked, top=given.top, tell=lambda line: print(shown(line)))
    only = [*given.only, *(["evaluations"] if given.evaluations else [])]
    for name, analysis in items.analyse(run, only, out, options):
        _print(analysis)
        folder = out or run.workdir / items.FOLDER
        print(f"written to {shown(str(folder / name))}.csv{' and .png' if analysis.draw else ''}")
    if out is None and run.results:
        page.write_page(run.workdir)


def _numbers(given: flags.FlagValues, name: str, kind: type) -> tuple:
    """The numbers of a flag; `ValueError` names a word that is none."""
    try:
        values = tuple(kind(word) for word in given[name].value)
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        example = "0,1,2" if kind is int else "1,2,5"
        words = ",".join(given[name].value)
        raise ValueError(f"--{name}={words}: {wanted} are needed, such as {example}") from None
    if name == "seeds" and not all(0 <= value < 2**32 for value in values):
        raise ValueError(f"--seeds={','.join(given.seeds)}: must be 0 to {2**32 - 1}")
    return values


def _print(analysis) -> None:
    from rich.table import Table  # late: rich is slow to load

    from flcl.report.console import Console

    table = Table(*analysis.short.columns, title=analysis.title, caption=analysis.note)
    for row in analysis.short.rows:
        table.add_row(*map(_cell, row))
    Console().print(table)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
