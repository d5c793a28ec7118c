"""The first import of every program here: makes the checkout importable, or says what is missing.

If the program is started and not imported, a signal from now on ends it without a traceback.

It runs in any Python 3, also one without the packages of flcl, and loads none of them.
"""

import importlib.util
import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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
        print(sys.modules["__main__"].__doc__.strip())
        print("\nThe list of flags needs the packages of flcl: bash launch/install.sh")
        sys.exit(0)
    line = "error: {}: run bash launch/install.sh, then .venv/bin/python {}\n"
    sys.stderr.write(line.format(problem, sys.argv[0]))
    sys.exit(2)


def _handle_signals():
    program = getattr(sys.modules["__main__"], "__file__", None) or ""
    if os.path.dirname(os.path.abspath(program)) == os.path.dirname(os.path.abspath(__file__)):
        from flcl import stopping

        stopping.end_at_once()  # until `cli.main` takes over


_start()
_handle_signals()
