"""`flcl classify` from a checkout: python launch/classify.py --help says what it does."""

import sys

import _start

if __name__ == "__main__":
    sys.exit(_start.run("classify"))
