"""Compares runs in one table: mean and deviation over seeds and orders, and paired differences.

Usage:
  flcl compare DIR ... [--columns=NAME,...] [--reference=ROW] [--out=FILE ...]

Examples:
  flcl compare runs/digits/*
  flcl compare runs/digits/* --reference=frozen --out=table.tex --out=curves.svg --out=page.html
  flcl compare runs/digits/* --columns=lda.last_accuracy,difference.lda.last_accuracy,drift
             --reference=frozen
  flcl compare runs/layers/* --against=parameters.parameters_per_class --by=adapter.family
             --out=layers.png
  flcl compare runs/digits/* --into=README.md#digits

A row is a group of runs whose settings differ only in seed and order. A difference is taken between
runs with the same seed and order; it is grey if its 95 % interval contains 0, or if there are fewer
than three pairs. Runs with different protocols are refused: data, tasks, images per class, sampler,
judge, and the head unless the columns name it. --allow=KEY mixes them, and the table says so.

The endings of --out are .md, .csv, .tex and .json for the table, .png, .svg and .pdf for the curves
over tasks, and .html for a page with links to the report of each run. With --against=NUMBER a
picture shows the first column against that number instead of the curves. --into replaces what
stands between the lines <!-- compare: NAME --> and <!-- end --> of a Markdown file. Nothing in the
folders is executed.
"""

from absl import flags

from flcl import cli
from flcl.settings.ids import separated
from flcl.shown import shown
from flcl.storage import paths

CONFIG, PROCESSES, WORDS = False, False, True


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    add = {"flag_values": values}
    text = (
        "numbers by name, such as last_accuracy, lda.last_accuracy, forgetting, fidelity, drift, "
    )
    text += "bytes_per_class or seconds; with difference. or error. before it; or a path in "
    text += "results.json. Default: the usual ones"
    flags.DEFINE_string("columns", "", text, **add)
    flags.DEFINE_string("reference", "", "row to which the others are compared in pairs", **add)
    flags.DEFINE_string("rows", "", "rows to show, in this order; default: all", **add)
    text = "parts of the protocol that may differ, such as head or sample; unfinished = leave out"
    flags.DEFINE_list("allow", [], text, **add)
    flags.DEFINE_multi_string("out", [], "file to write, by its ending; may be repeated", **add)
    text = "pictures: the number on the x axis, such as parameters.parameters_per_class"
    flags.DEFINE_string("against", "", text, **add)
    text = "--against: a key; rows with the same value of it have one colour and a line"
    flags.DEFINE_string("by", "", text, **add)
    flags.DEFINE_boolean("overwrite", False, "replace existing files", **add)
    flags.DEFINE_string("into", None, "Markdown FILE or FILE#NAME: a table to replace", **add)


def main(arguments: cli.Arguments) -> None:
    """Prints the table and writes the files."""
    given = arguments.flags
    if not arguments.words:
        raise ValueError("folders of runs are missing, such as runs/digits/*")
    from flcl import comparison
    from flcl.comparison import terminal, writing

    for path in given.out:
        cli.new_file(path, given.overwrite, writing.FORMS)
    if given.against and not any(path.endswith(writing.PICTURES) for path in given.out):
        raise ValueError("--against: a picture is needed, such as --out=points.png")
    if given.by and not given.against:
        raise ValueError(f"--by={given.by}: is read only with --against")
    if given.into and not paths.local(given.into.partition("#")[0], "--into").is_file():
        raise ValueError(f"--into={given.into}: there is no such file")
    compared = comparison.compare(
        arguments.words,
        columns=separated(given.columns),
        reference=given.reference,
        rows=separated(given.rows),
        allow=given.allow,
    )
    terminal.show(compared)
    for path in given.out:
        print(f"written to {shown(str(compared.save(path, given.against, given.by)))}")
    if given.into:
        path, _, name = given.into.partition("#")
        print(f"written into {shown(str(writing.into(compared, path, name)))}")
