"""Evaluates a run again: a generator with another sampler or judge, a classifier on any images.

Usage:
  flcl evaluate --workdir=DIR --out=FILE.json [--num_steps=...] [--oversample=...]
  flcl evaluate --workdir=DIR [--data=folder:PATH] [--head=linear] [--after=N]

Examples:
  flcl evaluate --workdir=runs/digits --solver=euler --num_steps=10 --out=euler10.json
  flcl evaluate --workdir=runs/mine --data=folder:holiday_pictures --out=holiday.json

The results of the run itself are not changed. For a generator, every key of the config's groups
`sample` and `judge` is a flag; a flag that is not given keeps the value of the run. For a
classifier, the result is top-1, top-5, accuracy per class and per domain, and a confusion matrix,
which is drawn in a file beside the JSON file. Without --out both files are written to
WORKDIR/evaluations.
"""

import dataclasses
import typing

from absl import flags

import flcl
from flcl import cli, files, settings
from flcl.runs.results import from_json
from flcl.settings.classifier.heads import HEADS
from flcl.shown import shown
from flcl.storage import paths

_CLASSIFIER = ("data", "head", "after")


CONFIG, PROCESSES, WORDS = False, True, False


def define(values: flags.FlagValues) -> None:
    """The flags of this program: its own, and one for each key of `sample` and `judge`."""
    flags.DEFINE_string("workdir", None, "folder of a run", flag_values=values)
    flags.DEFINE_string("out", None, "JSON file to write", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "replace an existing file", flag_values=values)
    text = "classifier: folder:PATH, npz:PATH or tfds:NAME; default: all test images of the run"
    flags.DEFINE_string("data", None, text, flag_values=values)
    text = f"classifier: the head that answers, one of heads.fit: some of {', '.join(HEADS)}"
    flags.DEFINE_string("head", None, text, flag_values=values)
    flags.DEFINE_integer(
        "after", None, "classifier: state after this task; default: the last", flag_values=values
    )
    kinds = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_boolean}
    for field in _generator_fields():
        text = f"generator: {field.metadata['comment']}"
        kinds.get(field.type, flags.DEFINE_string)(field.name, None, text, flag_values=values)


def main(arguments: cli.Arguments) -> None:
    """Evaluates, prints the tables, writes the results."""
    given = arguments.flags
    if given.out is not None:
        cli.new_file(given.out, given.overwrite, (".json",))
    run = flcl.open_run(cli.require(given.workdir, "workdir", "runs/NAME"))
    _refuse_others(given, classifies := isinstance(run.settings, settings.ClassifierRun))
    (_classifier if classifies else _generator)(run, given)


def _generator(run, given: flags.FlagValues) -> None:
    out = paths.local(cli.require(given.out, "out", "results_euler.json"), "--out")
    results = run.evaluate(_given(given, settings.GuidedSample), _given(given, settings.Judge))
    if not cli.writes():
        return
    from flcl.report import tables  # late: bad input is then reported at once

    tables.print_results(from_json(results))
    files.write_json(out, results)
    print(f"written to {shown(str(out))}")


def _classifier(run, given: flags.FlagValues) -> None:
    results = run.evaluate_on(given.data, head=given.head, after=given.after)
    if not cli.writes():
        return
    from flcl.report import evaluation

    print(shown(results["found"]))
    out = (
        paths.local(given.out, "--out")
        if given.out
        else evaluation.default_path(run.workdir, results)
    )
    title = f"{run.settings.name} · {results['data']} · {results['head']} head"
    picture = evaluation.write(results, out, title)
    print(shown(f"written to {out}; confusion matrix: {picture}"))


def _refuse_others(given: flags.FlagValues, classifies: bool) -> None:
    """Raises `ValueError` for a flag that this kind of run does not use."""
    others = [field.name for field in _generator_fields()] if classifies else _CLASSIFIER
    kind = "classifier" if classifies else "generator"
    for name in others:
        if given[name].present:
            raise ValueError(f"--{name}: {given.workdir} is the run of a {kind}. See --help")


def _generator_fields() -> tuple[dataclasses.Field, ...]:
    return (*dataclasses.fields(settings.GuidedSample), *dataclasses.fields(settings.Judge))


def _given(values: flags.FlagValues, section: type) -> dict:
    given = [(values[field.name], field.type) for field in dataclasses.fields(section)]
    # A list of words arrives as one text, and the settings divide it.
    return {
        flag.name: [flag.value] if typing.get_origin(kind) is tuple else flag.value
        for flag, kind in given
        if flag.present
    }
