"""The command line of the programs: flags, config overrides, help, and errors in one line.

absl and `ml_collections.config_flags` parse the overrides. This module adds what they lack: every
error is one line that says what is accepted, and `--help` lists every key of a config.
"""

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from flcl import called, ending, hints, settings, stopping, waiting
from flcl.settings import bridge, formats, later
from flcl.settings.config_file import load_config
from flcl.settings.given import overrides
from flcl.shown import show_everything, shown
from flcl.storage import foreign, paths

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)")
_METHOD = re.compile(r"--?config\.(?:(\w+)\.)?method=(.*)")
_SPEC = re.compile(r"--?config(=|$)")

STORED = "stored"
"""Of a program whose settings are those that a run has stored."""
MANY = "many"
"""Of a program that makes many runs of a config: it gets `--config` and its overrides as words."""


class Arguments(NamedTuple):
    """A parsed command line: flags, the settings if the program takes a config, words if any.

    changed: the keys of the settings that the command line names. given: of a program of `MANY`
    runs, the value of `--config`, and the words that change keys, such as `--config.seed=1`.
    """

    flags: flags.FlagValues
    run: settings.Run | settings.Combined | None
    words: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


def main(
    program: Callable[[Arguments], int | None],
    *,
    doc: str,
    define: Callable[[flags.FlagValues], None],
    config: bool | str = False,
    distributed: bool = False,
    takes_words: bool = False,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the command line, runs `program` and returns the exit code.

    Args:
      program: called with the parsed `Arguments`; returns the exit code, None means 0.
      doc: the first text that `--help` prints.
      define: adds the program's own flags to a `FlagValues`.
      config: whether the program takes (and needs) `--config` and its overrides; `STORED` = it
        takes overrides of the settings that the run in `--workdir` has stored; `MANY` = it gets
        both as words.
      distributed: whether the program may run in several processes.
      takes_words: whether it takes words that are no flags, such as the names of files.
      argv: the command line, with the program's name first; None means `sys.argv`.

    Bad input (`ValueError`, `OSError`) gives one line on stderr and exit code 2. A run that had to
    stop (`FloatingPointError`, no memory) gives code 1. SIGTERM gives code 75 and Ctrl-C code 130:
    everything is saved, the same command continues. A second Ctrl-C ends the process at once.
    FLCL_TRACEBACK=1 prints the traceback of an error.
    """
    words = list(sys.argv if argv is None else argv)
    show_everything()
    defines = _with_processes(define) if distributed else define
    try:
        with stopping.on_signals(), stopping.watched(ending.say_stopping, ending.end_at_once):
            flagged = (defines, config, distributed, takes_words)
            return ending.code_of(lambda: _start(program, words, doc, *flagged))
    finally:
        if argv is None:  # the process ends now, and what it had to write is written
            stopping.let_end()


def _start(
    program,
    argv: list[str],
    doc: str,
    defines,
    config: bool | str,
    distributed: bool,
    takes_words: bool,
) -> int:
    """Parses the command line and runs `program`, or prints the help."""
    if _wants_help(argv):
        print(_help(argv, doc, defines, config))
        return 0
    arguments = parse(argv, defines, config, takes_words)
    if distributed:
        _join(arguments.flags)
    with waiting.told(_say_waiting):
        return program(arguments) or 0


def _say_waiting(text: str) -> None:
    """One line about a program that is being compiled, where no report of a run shows it.

    Not on stderr, where an error is the only line.
    """
    if writes():
        print(shown(text), flush=True)


def parse(
    argv: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    config: bool | str = False,
    takes_words: bool = False,
) -> Arguments:
    """Flags and frozen settings of a command line; raises `ValueError` with one clear line."""
    values = flags.FlagValues()
    define(values)
    edited, spec, refused, words_of_config = None, None, [], ()
    if config == STORED:
        edited = _define_overrides(_stored(argv), argv, values)
    elif config:
        spec, argv = _split_spec(argv)
        if spec is None:
            raise ValueError("--config is missing, such as --config=funlora_digits")
    if config == MANY:
        words_of_config = (spec, *filter(_OVERRIDE.match, argv))
        argv = [word for word in argv if not _OVERRIDE.match(word)]
    elif config and config != STORED:
        given = load_config(spec)
        refused = bridge.errors(given)
        edited = _define_overrides(given, argv, values)
    try:
        words = values(argv)
    except flags.UnrecognizedFlagError as error:
        raise ValueError(
            f"unknown flag --{hints.brief(error.flagname)}."
            f"{_similar_flag(error.flagname, list(values), edited)} See --help"
        ) from error
    except (flags.Error, ValueError, TypeError) as error:
        raise ValueError(_plain(error, edited)) from error
    if len(words) > 1 and not takes_words:
        raise ValueError(f"unexpected argument {words[1]!r}: write --name=value. See --help")
    run = None if edited is None else overrides.frozen(edited, spec, refused)
    changed = tuple(dict.fromkeys(m[2] for m in map(_OVERRIDE.match, argv) if m and edited))
    return Arguments(values, run, tuple(words[1:]), changed, words_of_config)


def settings_of(spec: str, words: Sequence[str]) -> settings.Run | settings.Combined:
    """The settings of a config with overrides, as `--config=SPEC WORDS` of a command line."""
    return parse(["flcl", f"--config={spec}", *words], lambda _: None, config=True).run


def _stored(argv: Sequence[str]) -> ConfigDict:
    """The settings that the run in `--workdir` has stored."""
    workdir = _value_of("workdir", argv)
    place = paths.local(require(workdir, "workdir", "runs/NAME"), "workdir")
    foreign.check_folder(place)
    run = formats.load(place)
    if run is None:
        raise ValueError(f"workdir {place} holds no run: {formats.NAME} is missing")
    return bridge.to_config(run)


def _value_of(flag: str, argv: Sequence[str]) -> str:
    """The value of a flag, before the flags are parsed; empty if it is not given."""
    words = list(argv)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else "".join(words[place + 1 : place + 2])
    return ""


def require(value, flag: str, example: str):
    """Returns `value`; raises `ValueError` with an example if the flag was not given."""
    if value in (None, ""):
        raise ValueError(f"--{flag} is missing, such as --{flag}={example}")
    return value


def new_file(path: str, overwrite: bool, suffixes: Iterable[str] = ()) -> Path:
    """The path of a file to write.

    Raises `ValueError` for another suffix, for an existing file without `overwrite`, and if the
    folder is missing. No suffixes: every suffix is accepted.
    """
    target = paths.local(path, "--out")
    suffixes = tuple(suffixes)
    if suffixes and target.suffix not in suffixes:
        raise ValueError(f"--out={path}: must end in {' or '.join(suffixes)}")
    if target.exists() and not overwrite:
        raise ValueError(f"--out={path}: exists already; choose another name or add --overwrite")
    if not target.parent.is_dir():
        raise ValueError(f"--out={path}: there is no folder {str(target.parent)!r}")
    return target


def _split_spec(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--config` and the other words."""
    spec, rest, words = None, [], iter(argv)
    for word in words:
        if not _SPEC.match(word):
            rest.append(word)
        elif spec is not None:
            raise ValueError("--config is given twice")
        else:
            _, equals, value = word.partition("=")
            spec = value if equals else next(words, "")
    return spec, rest


def _define_overrides(
    config: ConfigDict, argv: Sequence[str], values: flags.FlagValues
) -> ConfigDict:
    """Adds a flag for every `--config.key` in `argv`; returns the config that parsing will edit."""
    given = [match[2] for match in map(_OVERRIDE.match, argv) if match]
    methods = {match[1]: match[2] for match in map(_METHOD.fullmatch, argv) if match}
    config = overrides.with_methods(config, methods)
    overrides.check_keys(config, given)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(argv))
    return values["config"].value


def _similar_flag(name: str, flag_names: list[str], config: ConfigDict | None) -> str:
    """A suggestion among the flags, and among the keys for a word without `config.`."""
    if hint := hints.did_you_mean(name, flag_names):
        return hint
    keys = [] if config is None else [key for key, _ in bridge.keys(bridge.class_of(config))]
    near = hints.nearest(name, keys)
    return "" if near is None else f" Did you mean 'config.{near}'?"


def _plain(error: Exception, config: ConfigDict | None) -> str:
    """The error of absl about a value, in the words of `flcl.settings.bridge`."""
    match = re.match(r"flag --(config\.)?([^=]+)=(.*?): (.*)", str(error), re.DOTALL)
    if match is None:
        return hints.brief(str(error))
    prefix, name, value, reason = match.groups()
    value = hints.brief(value)
    if prefix and config is not None:
        kinds = dict(bridge.keys(bridge.class_of(config)))
        return f"--config.{name}={value}: {bridge.accepted(kinds[name].type)}"
    # absl shows what Python says about a text that is no number.
    for said, needed in (("int()", "a whole number"), ("float", "a number"), ("limit", "a number")):
        if said in reason:
            reason = f"{needed} is needed"
    return f"--{name}={value}: {reason}"


def _with_processes(define):
    """Returns `define`, extended by the flags of a run in several processes."""

    def both(values: flags.FlagValues) -> None:
        define(values)
        text = "several processes: HOST:PORT of process 0; not needed on SLURM, Open MPI and TPUs"
        flags.DEFINE_string("coordinator", None, text, flag_values=values)
        flags.DEFINE_integer("processes", None, "number of processes", flag_values=values)
        flags.DEFINE_integer("process", None, "number of this process, from 0", flag_values=values)

    return both


def _join(values: flags.FlagValues) -> None:
    """Joins the other processes of the run, if there are any."""
    from flcl.devices import hosts  # late: it loads JAX

    hosts.start(values.coordinator, values.processes, values.process)


def writes() -> bool:
    """Whether this process prints and writes; in a run of several processes only one does."""
    from flcl.devices import hosts  # late: it loads JAX

    return hosts.is_main()


def _wants_help(argv: Sequence[str]) -> bool:
    return any(word in ("--help", "-h", "-help", "--helpfull") for word in argv[1:])


def _help(argv, doc: str, define, config: bool | str) -> str:
    values = flags.FlagValues()
    define(values)
    parts = [called.as_called(doc.strip()), "Flags:\n" + "\n".join(_flag_lines(values))]
    if config == STORED:
        if _value_of("workdir", argv):
            run = bridge.freeze(_stored(argv))
            title = "Keys that a later task of this run may change:\n"
            parts.append(title + "\n".join(_key_lines(run, later.accepts)))
        else:
            parts.append("Add --workdir=DIR to list the keys that its next task may change.")
    elif config:
        spec, rest = _split_spec(argv)
        if spec is None:
            parts.append("Add --config=NAME to list every key of that config, with its value.")
        else:
            words = [word for word in rest if _OVERRIDE.match(word)]
            # The overrides are applied: a user can check a value before a run.
            run = settings_of(spec, words)
            parts.append(f"Keys of {spec}:\n" + "\n".join(_key_lines(run)))
    return "\n\n".join(parts)


def _flag_lines(values: flags.FlagValues) -> list[str]:
    lines = []
    for name in sorted(values):
        flag = values[name]
        shown = "" if flag.default in (None, "", []) else f"={flag.default_unparsed}"
        lines.append(_entry(f"--{name}{shown}", flag.help))
    return lines


def _key_lines(run: settings.Run, shows: Callable[[str], bool] = lambda name: True) -> list[str]:
    """A line for each key, its value and its comment. shows: which ones, by name."""
    lines, group = [], ""
    for name, field in bridge.keys(type(run)):
        if not shows(name):
            continue
        value = bridge.value(run, name)
        before, group = group, name.rpartition(".")[0]
        if before != group:
            lines.append("")
        text = ",".join(map(str, value)) or "()" if isinstance(value, tuple) else str(value)
        lines.append(_entry(f"--config.{name}={text}", bridge.explained(field)))
    return lines


def _entry(left: str, right: str) -> str:
    gap = 44
    wrapped = textwrap.wrap(right, 100 - gap) or [""]
    first = f"  {left:<{gap - 4}}  " if len(left) <= gap - 4 else f"  {left}\n{' ' * gap}"
    return first + f"\n{' ' * gap}".join(wrapped)
