"""Starts a program of flcl from a checkout, or says what is missing.

A signal ends a program that was just started without a traceback.

It runs in any Python 3, also one without the packages of flcl, and loads none of them.
"""

import importlib.util
import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(name):
    """Runs the program `name` with the words of the command line; returns its exit code."""
    from flcl import programs

    return programs.run(name)


def _start():
    # Import from the checkout, not from this folder.
    sys.path[0] = _ROOT
    if sys.version_info < (3, 11):  # noqa: UP036 - older ones run this file
        problem = "Python {}.{} is too old, flcl needs 3.11 or newer".format(*sys.version_info)
    elif not all(map(importlib.util.find_spec, ("absl", "jax", "ml_collections"))):
        problem = "the packages of flcl are not installed for " + (sys.executable or "this Python")
    else:
        return
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_about(os.path.basename(sys.argv[0])))
        print("\nThe list of flags needs the packages of flcl: bash launch/install.sh")
        sys.exit(0)
    line = "error: {}: run bash launch/install.sh, then .venv/bin/python {}\n"
    sys.stderr.write(line.format(problem, sys.argv[0]))
    sys.exit(2)


def _about(file):
    """The docstring of the program that the file in launch/ starts, read without running it."""
    name = file[: -len(".py")]
    with open(os.path.join(_ROOT, "flcl", "programs", file), encoding="utf-8") as opened:
        text = opened.read().split('"""')[1].strip()
    return text.replace("flcl " + name + " ", "python launch/" + file + " ")


def _handle_signals():
    program = getattr(sys.modules["__main__"], "__file__", None) or ""
    if os.path.dirname(os.path.abspath(program)) == os.path.dirname(os.path.abspath(__file__)):
        from flcl import stopping

        stopping.end_at_once()  # until `cli.main` takes over


_start()
_handle_signals()
