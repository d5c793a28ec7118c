"""The command line of `launch/`: flags, config overrides, help, and errors in one line.

absl and `ml_collections.config_flags` parse the overrides. This module adds what they lack: every
error is one line that says what is accepted, and `--help` lists every key of a config.
"""

import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from flcl import files, hints, settings, stopping
from flcl.settings import bridge
from flcl.settings.config_file import load_config
from flcl.shown import show_everything, shown
from flcl.storage import paths

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)")
_METHOD = re.compile(r"--?config\.(?:(\w+)\.)?method=(.*)")
_SPEC = re.compile(r"--?config(=|$)")


class Arguments(NamedTuple):
    """A parsed command line: flags, the settings if the program takes a config, words if any."""

    flags: flags.FlagValues
    run: settings.Run | settings.Combined | None
    words: tuple[str, ...] = ()


def main(
    program: Callable[[Arguments], int | None],
    *,
    doc: str,
    define: Callable[[flags.FlagValues], None],
    config: bool = False,
    distributed: bool = False,
    takes_words: bool = False,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the command line, runs `program` and returns the exit code.

    Args:
      program: called with the parsed `Arguments`; returns the exit code, None means 0.
      doc: the first text that `--help` prints.
      define: adds the program's own flags to a `FlagValues`.
      config: whether the program takes (and needs) `--config` and its overrides.
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
        with stopping.on_signals(), stopping.watched(_say_stopping, _end_at_once):
            flagged = (defines, config, distributed, takes_words)
            return _ending(lambda: _start(program, words, doc, *flagged))
    finally:
        if argv is None:  # the process ends now, and what it had to write is written
            stopping.let_end()


def _start(
    program, argv: list[str], doc: str, defines, config: bool, distributed: bool, takes_words: bool
) -> int:
    """Parses the command line and runs `program`, or prints the help."""
    if _wants_help(argv):
        print(_help(argv, doc, defines, config))
        return 0
    arguments = parse(argv, defines, config, takes_words)
    if distributed:
        _join(arguments.flags)
    return program(arguments) or 0


def _ending(work: Callable[[], int]) -> int:
    """The exit code of `work`, after one line on stderr for what it raised."""
    try:
        code = work()
        sys.stdout.flush()  # here, where an error is one line, and not while Python ends
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        _close_stdout()
        return 1
    except OSError as error:
        if error.filename is None and _is_full(sys.stdout):
            error.filename = "standard output"
        if files.may_pass(error, "") is not None:
            error = OSError(f"{error}; when this is mended, run the same command again")
        return _complain(error, 2)
    except ValueError as error:
        return _complain(error, 2)
    except FloatingPointError as error:
        return _complain(error, 1)
    except MemoryError as error:
        return _complain(MemoryError(f"this machine is out of memory: {error}".rstrip(": ")), 1)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        hint = (
            "lower phase1.batch_size and phase2.batch_size, judge.batch_size or sample.chunk; for "
            "a classifier train.batch_size or train.eval_batch_size, or set model.remat=blocks"
        )
        return _complain(RuntimeError(f"the device is out of memory: {hint}"), 1)
    except stopping.StoppedError as error:
        print(f"{error}: run the same command to continue", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command to continue", file=sys.stderr)
        return stopping.INTERRUPTED


def _is_full(stdout) -> bool:
    """Whether standard output cannot be written; Python shall not try it again at its end."""
    try:
        print(file=stdout, flush=True)  # what could not be written before is forgotten
    except OSError:
        _close_stdout()
        return True
    return False


def _close_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_stopping() -> None:
    print("\nstopping; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)


def _end_at_once() -> None:
    """Ends the process as `kill` does: a save is complete or it does not count."""
    if sys.stdout.isatty():
        print("\x1b[?25h", end="", flush=True)  # a progress bar hides the cursor
    print("interrupted: run the same command to continue", file=sys.stderr, flush=True)
    os._exit(stopping.INTERRUPTED)


def parse(
    argv: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    config: bool = False,
    takes_words: bool = False,
) -> Arguments:
    """Flags and frozen settings of a command line; raises `ValueError` with one clear line."""
    values = flags.FlagValues()
    define(values)
    edited, spec, refused = None, None, []
    if config:
        spec, argv = _split_spec(argv)
        if spec is None:
            raise ValueError("--config is missing, such as --config=configs/funlora_digits.py")
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
    run = None if edited is None else _frozen(edited, spec, refused)
    return Arguments(values, run, tuple(words[1:]))


def _frozen(edited: ConfigDict, spec: str, refused: list[str]) -> settings.Run:
    """The settings of an edited config. refused: what is wrong with the file `spec` by itself."""
    try:
        return bridge.freeze(edited)
    except ValueError as error:
        if str(error) in refused:
            raise ValueError(f"--config={hints.quoted(spec)}: {error}") from None
        raise


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
    for word in argv:  # first, because the method decides which keys exist
        if method := _METHOD.fullmatch(word):
            config = bridge.switched(config, method[1], method[2])
    name = config.get("method", "combined")
    known = [key for key, _ in bridge.keys(bridge.class_of(config))]
    for key in given:
        if key not in known:
            raise bridge.unread(key, known, name)
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


def _help(argv, doc: str, define, config: bool) -> str:
    values = flags.FlagValues()
    define(values)
    parts = [doc.strip(), "Flags:\n" + "\n".join(_flag_lines(values))]
    if config:
        spec, rest = _split_spec(argv)
        if spec is None:
            parts.append("Add --config=FILE to list every key of that config, with its value.")
        else:
            words = [word for word in rest if _OVERRIDE.match(word)]
            # The overrides are applied: a user can check a value before a run.
            run = parse([argv[0], f"--config={spec}", *words], lambda _: None, True).run
            parts.append(f"Keys of {spec}:\n" + "\n".join(_key_lines(run)))
    return "\n\n".join(parts)


def _flag_lines(values: flags.FlagValues) -> list[str]:
    lines = []
    for name in sorted(values):
        flag = values[name]
        shown = "" if flag.default in (None, "", []) else f"={flag.default_unparsed}"
        lines.append(_entry(f"--{name}{shown}", flag.help))
    return lines


def _key_lines(run: settings.Run) -> list[str]:
    lines, group = [], ""
    for name, field in bridge.keys(type(run)):
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


def _complain(error: Exception, code: int) -> int:
    if os.environ.get("FLCL_TRACEBACK"):
        traceback.print_exception(error)
        return code
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = hints.brief(lines[0], most=400) if lines else type(error).__name__
    if len(lines) > 1 or not lines:
        text += " (FLCL_TRACEBACK=1 shows the rest)"
    print(f"error{_which_process()}: {shown(text)}", file=sys.stderr)
    return code


def _which_process() -> str:
    """The words that name this process, if there are several."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized() or jax.process_count() == 1:
        return ""
    return f" in process {jax.process_index()} of {jax.process_count()}"
