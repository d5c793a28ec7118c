"""`flcl sweep` from a checkout: python launch/sweep.py --help says what it does."""

import sys

import _start

if __name__ == "__main__":
    sys.exit(_start.run("sweep"))
