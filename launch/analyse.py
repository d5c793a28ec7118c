"""`flcl analyse` from a checkout: python launch/analyse.py --help says what it does."""

import sys

import _start

if __name__ == "__main__":
    sys.exit(_start.run("analyse"))
