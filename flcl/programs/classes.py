"""Lists the classes of a run, writes them to files, takes them in from files, and removes them.

Usage:
  flcl classes list --workdir=DIR
  flcl classes export --workdir=DIR --out=DIR [--classes=cat,dog] [flags]
  flcl classes import --workdir=DIR FILE... [--names=cat:tiger]
  flcl classes remove --workdir=DIR --classes=cat,dog

Examples:
  flcl classes list --workdir=runs/digits
  flcl classes export --workdir=runs/digits --classes=3,5 --out=digits
  flcl classes export --workdir=runs/digits --trunk --out=digits

Generators: export writes one safetensors file for each class, with its factors, its trunk's SHA-256
and where it comes from. --merged writes the whole network of a class instead, --trunk the trunk.
import: into a run with the same trunk; samples have the bits of those of the run from which a class
comes. The next planned tasks take their classes; others become a new task. The next `flcl train` or
`flcl learn` of the run tests them.
remove: no byte of the factors of a class stays, and no other class changes. If it is stopped, the
same command ends it.
Classifiers: export writes the low-rank update of the transformer as a PEFT folder. remove deletes
the column and the statistics of a class, which is never an answer again. The network that all
classes share keeps what it learned from it.
"""

import json

from absl import flags

import flcl
from flcl import cli, hints, settings
from flcl.shown import shown
from flcl.storage import paths

CONFIG, PROCESSES, WORDS = False, False, True


def define(values: flags.FlagValues) -> None:
    """The flags of this program."""

    def add(define_kind, name: str, default, text: str) -> None:
        define_kind(name, default, text, flag_values=values)

    add(flags.DEFINE_string, "workdir", None, "folder of a run")
    add(flags.DEFINE_boolean, "json", False, "list: print JSON instead of a table")
    add(flags.DEFINE_string, "out", None, "export: folder to write into")
    add(flags.DEFINE_boolean, "overwrite", False, "export: replace existing files")
    text = "ids or names, such as 3,5 or cat,dog; export: default all learned classes"
    add(flags.DEFINE_list, "classes", [], text)
    text = "import: new names, OLD:NEW for each"
    add(flags.DEFINE_list, "names", [], text)
    text = "import: new names that differ from known ones only in case or Unicode form"
    add(flags.DEFINE_list, "distinct", [], text)
    add(flags.DEFINE_boolean, "merged", False, "export: the whole network of each class")
    text = "export: the trunk as trunk.safetensors, and classes only if they are named"
    add(flags.DEFINE_boolean, "trunk", False, text)
    text = "export of a classifier: vit, dinov2, timm, ...; default: that of its weights file"
    add(flags.DEFINE_string, "model", None, text)
    text = "export of a classifier: what that model has before its names, such as vit."
    add(flags.DEFINE_string, "prefix", "", text)


def main(arguments: cli.Arguments) -> None:
    """Does what the first word says."""
    verb, *others = arguments.words or ("",)
    if verb not in _VERBS:
        asked = f"{hints.quoted(verb)}: " if verb else ""
        raise ValueError(
            f"{asked}the first word must be one of {', '.join(_VERBS)}."
            f"{hints.did_you_mean(verb, list(_VERBS))}"
        )
    if others and verb != "import":
        raise ValueError(f"unexpected argument {hints.quoted(others[0])}: write --name=value")
    cli.require(arguments.flags.workdir, "workdir", "runs/NAME")
    _VERBS[verb](arguments.flags, *([others] if verb == "import" else []))


def _list(given: flags.FlagValues) -> None:
    listed = flcl.open_run(given.workdir).classes()
    if given.json:
        print(json.dumps([entry._asdict() for entry in listed], indent=2))
        return
    from rich.table import Table  # late: rich is slow to load

    from flcl.report.console import Console

    table = Table("id", "class", "task", "parameters", "bytes", "removed")
    for entry in listed:
        task = "not learned" if entry.task is None else str(entry.task)
        sizes = ["-" if size is None else f"{size:,}" for size in (entry.parameters, entry.bytes)]
        table.add_row(str(entry.id), shown(entry.name), task, *sizes, entry.removed or "")
    Console().print(table)


def _export(given: flags.FlagValues) -> None:
    out = paths.local(cli.require(given.out, "out", "files"), "--out")
    run = flcl.open_run(given.workdir)
    if isinstance(run.settings, settings.ClassifierRun):
        _export_adapter(run, given, out)
        return
    if given.model or given.prefix:
        raise ValueError(f"--model and --prefix: {given.workdir} is the run of a generator")
    written = []
    if given.classes or not given.trunk:
        names, merged = given.classes or None, given.merged
        written += run.export_classes(names, out, merged=merged, overwrite=given.overwrite)
    if given.trunk:
        path = out / "trunk.safetensors"
        # A class may have this name.
        overwrite = given.overwrite and path not in written
        written.append(run.export_trunk(path, overwrite=overwrite))
    for path in written:
        print(f"{shown(str(path))}: {path.stat().st_size:,} bytes")


def _export_adapter(run, given: flags.FlagValues, out) -> None:
    if given.classes or given.merged or given.trunk:
        raise ValueError(
            f"--classes, --merged and --trunk: {given.workdir} is the run of a classifier, whose "
            "classes share one adapter"
        )
    names = {"model": given.model, "prefix": given.prefix, "overwrite": given.overwrite}
    for path in sorted(run.export_adapter(out, **names).glob("adapter_*")):
        print(f"{shown(str(path))}: {path.stat().st_size:,} bytes")


def _import(given: flags.FlagValues, paths_of_files: list[str]) -> None:
    names = {}
    for pair in given.names:
        old, colon, new = pair.partition(":")
        if not colon:
            raise ValueError(f"--names={pair}: OLD:NEW is needed, such as --names=cat:tiger")
        if old in names:
            raise ValueError(f"--names={pair}: {hints.quoted(old)} has a new name already")
        names[old] = new
    if not paths_of_files:
        raise ValueError("import: name the class files, such as files/cat.safetensors")
    run = flcl.open_run(given.workdir, "generator")
    taken = run.import_classes(paths_of_files, names, distinct=given.distinct)
    listed = ", ".join(map(shown, taken))
    print(f"taken in: {listed}; the next train or learn of the run tests them")


def _remove(given: flags.FlagValues) -> None:
    from flcl.runs.later import removal  # late: it loads JAX
    from flcl.runs.opened import run as opened

    # Not through an opened run: one whose removal was stopped does not open.
    gone = removal.remove_classes(given.workdir, given.classes)
    stored, _ = opened.read(paths.local(given.workdir, "workdir"))
    generator = isinstance(stored, settings.GeneratorRun)
    for each in gone:
        what = f"factors are gone from task {each.task}"
        if not generator:
            what = "column of the head and its statistics are gone"
        print(f"{shown(each.name)}: its {what}; pictures of it and its numbers in results stay")
    if gone and not generator:
        print(
            "What all classes share (the network as it was trained, and scatter matrices) keeps "
            "what it learned from them."
        )


_VERBS = {"list": _list, "export": _export, "import": _import, "remove": _remove}
