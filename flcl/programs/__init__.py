"""The programs of flcl: `flcl NAME ...`, or `python launch/NAME.py ...` in a checkout.

A program is a module of this room. Its docstring is its help, and the first line of it stands in
the list of all programs. It has

  define(values)    adds its flags to a `FlagValues`
  main(arguments)   does its work with the parsed `cli.Arguments`; an exit code, None = 0
  CONFIG            whether it takes `--config` and `--config.key=value`
  PROCESSES         whether it may run in several processes
  WORDS             whether it takes words that are no flags, such as the names of files

and imports JAX only inside `main`: mistakes on the command line are told at once.
"""

import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

import flcl
from flcl import called, cli, ending, hints, stopping


def main() -> int:
    """The command `flcl`: runs the program that the first word names; returns the exit code."""
    stopping.end_at_once()  # until `cli.main` takes over
    words = sys.argv[1:]
    if words and words[0] in names():
        del sys.argv[1]
        return run(words[0])
    return ending.code_of(lambda: _without_program(words))


def run(name: str) -> int:
    """Runs the program `name` with the words of `sys.argv`; returns the exit code."""
    program = import_module(f"{__name__}.{name}")
    return cli.main(
        program.main,
        doc=program.__doc__,
        define=program.define,
        config=program.CONFIG,
        distributed=program.PROCESSES,
        takes_words=program.WORDS,
    )


def names() -> list[str]:
    """The names of all programs, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _without_program(words: Sequence[str]) -> int:
    """Prints what there is, or raises `ValueError` for a word that is no program."""
    if not words or words[0] in ("--help", "-h", "-help", "--helpfull", "help"):
        print(_help())
    elif words[0] == "--version":
        print(f"flcl {flcl.__version__}")
    else:
        raise ValueError(
            f"{hints.quoted(words[0])}: flcl has no such program."
            f"{hints.did_you_mean(words[0], names())} There are {', '.join(names())}"
        )
    return 0


def _help() -> str:
    lines = [flcl.__doc__.splitlines()[0], "", "Programs:"]
    commands = {name: called.program(name) for name in names()}
    width = max(map(len, commands.values()))
    for name, command in commands.items():
        about = import_module(f"{__name__}.{name}").__doc__.splitlines()[0]
        lines.append(f"  {command:<{width}}  {about}")
    return "\n".join([*lines, "", f"{called.program('train')} --help says what a program takes."])
