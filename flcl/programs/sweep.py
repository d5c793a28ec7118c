"""Trains many runs of a config: methods, seeds, orders and values of keys, one after the other.

Usage:
  flcl sweep --config=NAME|FILE.py[:ARG] --out=DIR [--methods=...] [--seeds=...] [--orders=...]
             [--grid KEY=VALUE,VALUE ...] [--config.key=value ...]

Examples:
  flcl sweep --config=fmlora_digits --methods=default,frozen,joint --seeds=0,1,2 --out=runs/digits
  flcl sweep --config=fmlora_digits --methods=default,paper+no_drs --orders=natural,seed:1993
             --out=runs/digits --dry_run
  flcl sweep --config=funlora_digits --grid phase2.learning_rate=1e-2,3e-2 --out=runs/rates
  flcl compare runs/digits/*

A row of --methods is a word that the config takes after its colon, such as no_dmp or family=shift,
or only the value of baseline=, such as frozen; + joins several, and default is the config as it is.
An order or a value with a comma needs quotes: '--orders="photo,sketch","sketch,photo"'.

Every combination is a cell: a run in a folder of its own in --out. All cells are checked before the
first one is trained. Each has a process of its own and prints into its sweep.log; one that fails is
named at the end, the others go on, and then the exit code is 1. The same command continues: cells
that are finished are skipped. Given twice at the same time, it shares the cells between the two.
--slurm prints a script that trains them as an array job.
"""

import fnmatch
import sys
from collections.abc import Sequence

from absl import flags

from flcl import called, cli, hints, settings
from flcl.settings.ids import separated
from flcl.shown import shown
from flcl.storage import paths
from flcl.sweep import cells, cluster, running
from flcl.sweep.rows import DEFAULT, row

CONFIG, PROCESSES, WORDS = cli.MANY, False, False

# Their keys have flags of their own.
_FLAGS = {"method": "methods", "seed": "seeds", "class_order": "orders", "domain_order": "orders"}
_LISTED = 6  # names of cells in an error


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""
    add = {"flag_values": values}
    flags.DEFINE_string("out", None, "folder of all cells; made if missing", **add)
    text = (
        "rows: words that the config takes, or values of baseline=; default = the config as it is"
    )
    flags.DEFINE_string("methods", DEFAULT, text, **add)
    flags.DEFINE_string("seeds", "", "values of seed; default: that of the config", **add)
    text = "values of stream.class_order, or of stream.domain_order for domains"
    flags.DEFINE_string("orders", "", text, **add)
    text = "the first seed with the first order, and so on; default: every seed with every order"
    flags.DEFINE_boolean("paired", False, text, **add)
    flags.DEFINE_multi_string(
        "grid", [], "KEY=VALUE,VALUE: values of a key; may be repeated", **add
    )
    text = (
        "train only these cells: numbers (see --dry_run), or names, in which * stands for any text"
    )
    flags.DEFINE_list("only", [], text, **add)
    flags.DEFINE_boolean(
        "dry_run", False, "list the cells and their commands; train nothing", **add
    )
    flags.DEFINE_boolean("slurm", False, "print a script for an array job; train nothing", **add)


def main(arguments: cli.Arguments) -> int:
    """Trains the cells, or lists them; 1 if a cell failed."""
    given = arguments.flags
    out = paths.folder(cli.require(given.out, "out", "runs/NAME"), "--out")
    every = cells.make(_plan(arguments), out, cli.settings_of)
    chosen = _chosen(every, given.only)
    if given.slurm:
        left = [cell.number for cell in chosen if cell.state() != "finished"]
        if not left:
            raise ValueError("--slurm: all cells are finished")
        print(cluster.script(_words_of_sweep(), left), end="")
        return 0
    if given.dry_run:
        _print_cells(chosen)
        return 0
    failures = running.run(chosen, lambda line: print(line, flush=True))
    for cell, error in failures:
        print(f"cell {cell.name}: {error}\n  repeat: {running.command(cell)}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(chosen)} cells failed", file=sys.stderr)
        return 1
    # Of a config of two runs, the classifier is what was trained with the other's samples.
    two = "/classifier" if isinstance(chosen[0].run, settings.Combined) else ""
    command = f"{called.program('compare')} {shown(str(out))}/*{two}"
    print(f"{len(chosen)} cells are finished: {command}")
    return 0


def _plan(arguments: cli.Arguments) -> cells.Plan:
    """What the flags say."""
    given = arguments.flags
    spec, *words = arguments.given
    names = [key for key, _ in map(_key_of, words)]
    grid = dict(_axis(text) for text in given.grid)
    if len(grid) < len(given.grid):
        raise ValueError("--grid: a key is given twice; write all its values after one =")
    for key in (*grid, *names):
        flag = _FLAGS.get(key.rpartition(".")[2])
        if flag and (key in grid or given[flag].present):
            raise ValueError(f"{key}: it is varied by --{flag}; give its values there")
        if key in grid and key in names:
            raise ValueError(f"{key}: given with --grid and with --config.{key}")
    rows = [row(spec, name) for name in separated(given.methods)]
    if not rows:
        raise ValueError("--methods is empty: give rows, or leave it out for the config as it is")
    lists = (separated(given.orders), separated(given.seeds))
    return cells.Plan(rows, grid, *lists, given.paired, words)


def _key_of(word: str) -> tuple[str, str]:
    """Key and value of `--config.key=value`, also of `--noconfig.key`."""
    name, _, value = word.lstrip("-").partition("=")
    return name.partition("config.")[2], value


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    listed = separated(values)
    if not key or not equals or not listed:
        raise ValueError(
            f"--grid={hints.quoted(text)}: KEY=VALUE,VALUE is needed, such as "
            "phase2.learning_rate=1e-2,3e-2"
        )
    return key.removeprefix("config."), listed


def _chosen(every: Sequence[cells.Cell], only: Sequence[str]) -> list[cells.Cell]:
    """The cells that `--only` names; all without it."""
    names = [cell.name for cell in every]
    wanted = set()
    for entry in only:
        if entry.isdecimal():
            found = [cell.number for cell in every if cell.number == int(entry)]
        else:
            found = [c.number for c in every if fnmatch.fnmatchcase(c.name, entry)]
        if not found:
            listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
            raise ValueError(
                f"--only={hints.quoted(entry)}: there is no such cell; there are {listed}."
                f"{hints.did_you_mean(entry, names)}"
            )
        wanted.update(found)
    return [cell for cell in every if cell.number in wanted or not only]


def _print_cells(chosen: Sequence[cells.Cell]) -> None:
    for cell in chosen:
        print(f"{cell.number:>4}  {cell.state():<8}  {shown(cell.name)}")
        print(f"      {shown(running.command(cell))}")


def _words_of_sweep() -> list[str]:
    """The words of this command line, without those that choose cells or print."""
    words, skipped = [], False
    for word in sys.argv[1:]:
        name = word.lstrip("-").partition("=")[0]
        if skipped or name in ("only", "slurm", "noslurm", "dry_run", "nodry_run"):
            skipped = name == "only" and "=" not in word
        else:
            words.append(word)
    return words
