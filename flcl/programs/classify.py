"""Classifies unlabelled images: a table with the class of each file.

Usage:
  flcl classify --workdir=DIR --images=FOLDER|FILE,FILE,... --out=FILE.csv [flags] [FILE ...]

Examples:
  flcl classify --workdir=runs/mine --images=holiday_pictures --out=holiday.csv
  flcl classify --workdir=runs/mine --images=a.png,b.jpg --out=two.csv --head=gaussian --after=3
  flcl classify --workdir=runs/mine --out=table.csv *.png

The columns are file, class, score, second, second_score: the most probable class with its
probability, and the next one. Of a folder all files are read, at any depth, but no hidden ones. A
file that is no readable image is named and left out; then the exit code is 1.
"""

import csv
import io
import os
import sys

from absl import flags

import flcl
from flcl import cli, files
from flcl.settings.classifier.heads import HEADS
from flcl.settings.ids import separated
from flcl.shown import shown

CONFIG, PROCESSES, WORDS = False, False, True
COLUMNS = ("file", "class", "score", "second", "second_score")


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    flags.DEFINE_string("workdir", None, "folder of the run of a classifier", flag_values=values)
    text = "a folder, a file, or several joined by commas; words after the flags are files too"
    flags.DEFINE_string("images", None, text, flag_values=values)
    flags.DEFINE_string("out", None, "CSV file to write", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "replace an existing file", flag_values=values)
    text = f"the head that answers, one of heads.fit: some of {', '.join(HEADS)}"
    flags.DEFINE_string("head", None, text, flag_values=values)
    text = "state of the run after this task; default: the last"
    flags.DEFINE_integer("after", None, text, flag_values=values)


def main(arguments: cli.Arguments) -> int:
    """Classifies, then writes the table; returns 1 if files were left out."""
    given = arguments.flags
    workdir = cli.require(given.workdir, "workdir", "runs/NAME")
    images = [*_listed(given.images or ""), *arguments.words]
    cli.require(given.images or ",".join(images), "images", "FOLDER")
    out = cli.new_file(cli.require(given.out, "out", "table.csv"), given.overwrite, (".csv",))
    run = flcl.open_run(workdir, "classifier")
    from flcl.report.progress import ProgressBar  # late: bad input is then reported at once

    count = left_out = 0

    def skipped(path: str, reason: str) -> None:
        nonlocal left_out
        left_out += 1
        print(shown(f"left out: {path}: {reason}"), file=sys.stderr)

    answers = run.classify_files(
        images, head=given.head, after=given.after, skipped=skipped, progress=ProgressBar
    )
    # In memory: a row has a hundred bytes, and the file is complete or it is not there.
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for path, name, score, second, second_score in answers:
        count += 1
        writer.writerow([path, name, f"{score:.6f}", second, f"{second_score:.6f}"])
    # The name of a file may have bytes that are no text.
    files.write(out, table.getvalue().encode("utf-8", "surrogateescape"))
    print(shown(f"{out}: {count:,} images classified, {left_out:,} left out"))
    return 1 if left_out else 0


def _listed(text: str) -> list[str]:
    """The paths in `--images`; the name of a file may have a comma."""
    if os.path.exists(text):
        return [text]
    return [path for path in separated(text) if path]
